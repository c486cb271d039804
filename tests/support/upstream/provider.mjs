// An upstream for the tests: oidc-provider, with accounts and clients of a JSON file that tests may change.
// node provider.mjs PORT CONFIG; prints "ready" when it listens. POST /control changes accounts and behaviour.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { Provider } from 'oidc-provider';

const [port, file] = process.argv.slice(2);
const state = JSON.parse(readFileSync(file, 'utf8'));
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: state.clients,
  jwks: state.jwks,
  cookies: { keys: ['for tests only'] },
  pkce: { required: () => true },
  scopes: ['openid', 'profile', 'offline_access', 'eduperson_entitlement', 'entitlements', 'eduperson_assurance', 'api'],
  claims: {
    openid: ['sub'],
    profile: ['name', 'preferred_username'],
    eduperson_entitlement: ['eduperson_entitlement'],
    entitlements: ['entitlements'],
    eduperson_assurance: ['eduperson_assurance'],
  },
  conformIdTokenClaims: false,
  features: {
    introspection: { enabled: true, allowedPolicy: async () => true },
    revocation: { enabled: true },
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: async () => undefined,
      useGrantedResource: async () => true,
      getResourceServerInfo: async (_ctx, resource) => ({
        scope: 'api eduperson_entitlement entitlements eduperson_assurance profile',
        audience: resource,
        accessTokenFormat: 'jwt',
        accessTokenTTL: state.access_s ?? 300,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  extraTokenClaims: async (_ctx, token) => {
    const account = state.accounts[token.accountId];
    if (!account) return undefined;
    return { preferred_username: account.preferred_username, eduperson_entitlement: account.eduperson_entitlement, eduperson_assurance: account.eduperson_assurance };
  },
  ttl: { AccessToken: (_ctx, token) => token.resourceServer?.accessTokenTTL ?? state.opaque_s ?? 3600 },
  rotateRefreshToken: () => state.rotate ?? true,
  issueRefreshToken: async (_ctx, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  findAccount: async (_ctx, sub) => state.accounts[sub] && {
    accountId: sub,
    claims: async () => ({ sub, ...state.accounts[sub] }),
  },
});

// oidc-provider does not introspect its JWTs, as other issuers do: here is what they say.
const keys = createLocalJWKSet({ keys: state.jwks.keys.map(({ kty, n, e, kid }) => ({ kty, n, e, kid })) });
async function introspect(body) {
  const token = new URLSearchParams(body).get('token') ?? '';
  try {
    const { payload } = await jwtVerify(token, keys, { issuer });
    const account = state.accounts[payload.sub];
    const known = account && payload.jti !== 'made-up' && !(state.revoked ?? []).includes(payload.jti);
    if (!known) return { active: false };
    return { active: true, ...payload, eduperson_entitlement: account.eduperson_entitlement };
  } catch {
    return { active: false };
  }
}
function read(request) {
  return new Promise((resolve) => {
    let body = '';
    request.on('data', (piece) => { body += piece; });
    request.on('end', () => resolve(body));
  });
}

const callback = provider.callback();
const server = createServer(async (request, response) => {
  if (request.method === 'POST' && request.url === '/control') {
    Object.assign(state, JSON.parse(await read(request)));
    response.end('{}');
  } else if (state.broken) {
    response.statusCode = 503;
    response.end('');
  } else if (request.method === 'POST' && request.url === '/token/introspection') {
    const expected = `Basic ${Buffer.from(`${state.clients[0].client_id}:${state.clients[0].client_secret}`).toString('base64')}`;
    response.statusCode = request.headers.authorization === expected ? 200 : 401;
    response.setHeader('content-type', 'application/json');
    const said = await introspect(await read(request));
    response.end(JSON.stringify(response.statusCode === 200 ? said : { error: 'invalid_client' }));
  } else {
    callback(request, response);
  }
});
server.listen(Number(port), '127.0.0.1', () => console.log('ready'));
