// What a line in /etc/hosts would do: the names in OPENCLAW_TEST_HOSTS are this host. Loaded with node --require, so that
// OpenClaw's own programs, unchanged, reach a gateway on 127.0.0.1 under a name that is not a loopback one.
const dns = require("node:dns");

const names = (process.env.OPENCLAW_TEST_HOSTS ?? "").split(",").filter(Boolean);
const lookup = dns.lookup;

dns.lookup = function (host, options, callback) {
  const done = typeof options === "function" ? options : callback;
  if (!names.includes(host)) return lookup.call(dns, host, options, callback);
  const all = typeof options === "object" && options !== null && options.all;
  process.nextTick(done, null, all ? [{ address: "127.0.0.1", family: 4 }] : "127.0.0.1", 4);
};
