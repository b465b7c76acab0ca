// OpenClaw's own schemas, read from the installed packages: node schemas.mjs list | check FILE.
// `list` prints {bundled|published: {name: schema}, errorCodes, connectCodes, methods}; `check` takes FILE's [{schema: "Name" | "Name/json/pointer", value}] and prints one list of faults per entry.
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";

const modules = process.env.OPENCLAW_MODULES;
const load = (...path) => import(pathToFileURL(join(modules, ...path)).href);
const bundled = await load("openclaw", "dist", "gateway", "protocol", "index.js"); // what OpenClaw's own gateway checks with
const published = await load("@openclaw", "gateway-protocol", "dist", "schema.mjs"); // what client authors get
const document = readFileSync(join(modules, "@openclaw", "gateway-protocol", "protocol.schema.json"), "utf8");
const methods = Object.keys(JSON.parse(document).methods);
const { ConnectErrorDetailCodes } = await load("@openclaw", "gateway-protocol", "dist", "connect-error-details.mjs");
const { Value } = await load("typebox", "build", "value", "index.mjs"); // the validator that both of them use

const editions = { bundled: {}, published: { ...published.ProtocolSchemas } };
for (const [name, schema] of Object.entries(bundled)) {
  if (name.endsWith("Schema") && schema && typeof schema === "object") editions.bundled[name.slice(0, -"Schema".length)] = schema;
}

const find = (reference) => {
  const [name, ...pointer] = reference.split("/");
  let schema = editions.bundled[name] ?? editions.published[name];
  if (schema === undefined) throw new Error(`no schema named ${name}`);
  for (const step of pointer) schema = schema[step];
  if (schema === undefined) throw new Error(`nothing at ${reference}`);
  return schema;
};

const told = (error) => {
  const more = error.params?.additionalProperties;
  return more ? more.map((name) => `${error.instancePath}/${name}: unexpected`) : [`${error.instancePath}: ${error.message}`];
};

// Of a union the faults of the nearest branch: those of all branches together say nothing to a reader.
const faults = (schema, value) => {
  if (Value.Check(schema, value)) return [];
  if (Array.isArray(schema.anyOf)) {
    const branches = schema.anyOf.map((branch) => faults(branch, value));
    return branches.reduce((best, next) => (next.length < best.length ? next : best));
  }
  return [...new Set([...Value.Errors(schema, value)].flatMap(told))];
};

const asked = process.argv[2] === "check" ? JSON.parse(readFileSync(process.argv[3], "utf8")) : null;
const listed = { ...editions, errorCodes: Object.values(bundled.ErrorCodes), connectCodes: Object.values(ConnectErrorDetailCodes), methods };
const answer = asked ? asked.map(({ schema, value }) => faults(find(schema), value)) : listed;
process.stdout.write(JSON.stringify(answer));
