#!/usr/bin/env bash
# Auth.js with a database adapter stores a user's tokens at the first sign-in only.
#
# Library: npm @auth/core 0.41.3, its TikTok provider.
# Documentation: an adapter's linkAccount is described as what saves the tokens of a provider, and the table of accounts
#   has access_token, refresh_token and expires_at. One would think that the row holds what the last sign-in brought.
# Surprise: at the second sign-in of the same user TikTok issues a new pair; the adapter is never told. The row keeps the
#   first pair for good, and a job that copies the table copies a pair that may long be used up.
# The refresher: remembers which refresh tokens of an account were used up. One that comes back by such a copy changes
#   nothing and is said, instead of being taken for a new authorization.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @auth/core@0.41.3

cat > sign_in.mjs <<'JS'
import { Auth } from "@auth/core";
import TikTok from "@auth/core/providers/tiktok";

// TikTok: a new pair for each code, always for the same user. Nothing leaves this process.
let issued = 0;
const json = (value) => Response.json(value);
globalThis.fetch = async (input) => {
  const url = new URL(input instanceof Request ? input.url : input);
  if (url.pathname !== "/v2/oauth/token/")
    return json({ data: { user: { open_id: "-000made-up", display_name: "D", avatar_url: "" } }, error: { code: "ok" } });
  issued += 1;
  return json({ access_token: `act.${issued}`, refresh_token: `rft.${issued}`, expires_in: 7200,
    refresh_expires_in: 15552000, open_id: "-000made-up", scope: "user.info.basic", token_type: "Bearer" });
};

// The smallest adapter there can be: one user, and the table of accounts.
let user = null;
const table = new Map();
const adapter = {
  createUser: async (data) => (user = { ...data, id: "1" }),
  getUser: async () => user,
  getUserByEmail: async () => null,
  getUserByAccount: async ({ providerAccountId }) => (table.has(providerAccountId) ? user : null),
  linkAccount: async (account) => { table.set(account.providerAccountId, { ...account }); },
  updateUser: async (data) => data,
  createSession: async (session) => session,
  getSessionAndUser: async () => null,
  updateSession: async (session) => session,
  deleteSession: async () => null,
};
const config = { adapter, basePath: "/auth", trustHost: true, secret: "made-up-secret-of-thirty-two-chars",
  providers: [TikTok({ clientId: "key", clientSecret: "secret" })] };

async function signIn() {
  const jar = new Map();
  const call = async (path, body) => {
    const headers = { cookie: [...jar].map((pair) => pair.join("=")).join("; ") };
    const answer = await Auth(new Request(`http://app.test/auth/${path}`, { method: body ? "POST" : "GET", body, headers }), config);
    for (const cookie of answer.headers.getSetCookie()) {
      const [name, ...value] = cookie.split(";")[0].split("=");
      jar.set(name, value.join("="));
    }
    return answer;
  };
  const { csrfToken } = await (await call("csrf")).json();
  await call("signin/tiktok", new URLSearchParams({ csrfToken, callbackUrl: "http://app.test/" }));
  await call("callback/tiktok?code=made-up");
  return table.get("-000made-up")?.refresh_token;
}

const seen = [await signIn(), await signIn()].join(", ");
const EXPECTED = "rft.1, rft.2", FOUND = "rft.1, rft.1";
console.log(`expected: the stored refresh token after each of two sign-ins: ${EXPECTED}`);
console.log(`seen:     ${seen} (TikTok had issued ${issued} pairs)`);
process.exit(seen === FOUND && issued === 2 ? 0 : 1);
JS
echo "versions: node $(node --version), @auth/core $(node -p 'require("./node_modules/@auth/core/package.json").version')"
node sign_in.mjs || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
