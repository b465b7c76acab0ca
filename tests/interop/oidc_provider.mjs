// oidc-provider (npm) with one client and its own development pages for logging in.
// argv: folder with node_modules, port, redirect address, client secret ("" for a public client).
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [folder, port, redirect, secret] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'gateway',
    ...(secret ? { client_secret: secret } : { token_endpoint_auth_method: 'none' }),
    redirect_uris: [redirect],
    response_types: ['code'],
    grant_types: ['authorization_code'],
    application_type: 'native',
  }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: id !== 'mallory' }),
  }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
