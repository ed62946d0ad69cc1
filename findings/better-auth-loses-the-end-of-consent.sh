#!/usr/bin/env bash
# better-auth never stores when a TikTok consent ends, although its table has a column for it.
#
# Library: npm better-auth 1.7.25, its TikTok provider.
# Documentation: the account table has refreshTokenExpiresAt, the time at which the refresh token expires.
# Surprise: TikTok names that time refresh_expires_in; the library reads refresh_token_expires_in and leaves the column
#   empty. Worse for whoever shares the pair: asking better-auth for the access token spends the refresh token as soon as
#   the access token is about to end, so the copy that another program holds is dead, and nothing tells it.
# The refresher: takes an account without refresh_token_expires_at as one whose end is unknown, works it until TikTok
#   refuses, and learns the end from its own first refresh. Let one program only refresh tokens: where that is better-auth,
#   REFRESHER_TOKEN_MANAGEMENT=external.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts better-auth@1.7.25

cat > sign_in.mjs <<'JS'
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";

// TikTok: access tokens that live a second, a consent of 180 days. Nothing leaves this process.
const spent = [];
let issued = 0;
globalThis.fetch = async (input, init) => {
  const url = new URL(input instanceof Request ? input.url : input);
  if (url.pathname !== "/v2/oauth/token/")
    return Response.json({ data: { user: { open_id: "-000made-up", display_name: "D", username: "d" } }, error: { code: "ok" } });
  const token = new URLSearchParams(init.body.toString()).get("refresh_token");
  if (token) spent.push(token);
  issued += 1;
  return Response.json({ access_token: `act.${issued}`, refresh_token: `rft.${issued}`, expires_in: 1,
    refresh_expires_in: 15552000, open_id: "-000made-up", scope: "user.info.basic,video.list", token_type: "Bearer" });
};

const database = { user: [], session: [], account: [], verification: [], rateLimit: [] };
const auth = betterAuth({ baseURL: "http://app.test", secret: "made-up-0123456789-ABCDEFGHIJ-klmnop", telemetry: { enabled: false }, logger: { level: "error" },
  database: memoryAdapter(database), socialProviders: { tiktok: { clientKey: "key", clientSecret: "secret" } } });
const jar = new Map();
async function call(path, body) {
  const headers = { "content-type": "application/json", origin: "http://app.test", cookie: [...jar].map((pair) => pair.join("=")).join("; ") };
  const answer = await auth.handler(new Request(`http://app.test/api/auth/${path}`,
    { method: body ? "POST" : "GET", body: body && JSON.stringify(body), headers }));
  for (const cookie of answer.headers.getSetCookie()) {
    const [name, ...value] = cookie.split(";")[0].split("=");
    jar.set(name, value.join("="));
  }
  return answer;
}

const { url } = await (await call("sign-in/social", { provider: "tiktok", callbackURL: "/" })).json();
await call(`callback/tiktok?code=made-up&state=${new URL(url).searchParams.get("state")}`);
const [account] = database.account;
const atSignIn = account.refreshTokenExpiresAt ?? "empty";
const read = await call("get-access-token", { accountId: account.id });
const afterRefresh = database.account[0].refreshTokenExpiresAt ?? "empty";

const seen = `end of consent ${atSignIn} at sign-in, ${afterRefresh} after a refresh; reading the access token spent ${spent.join(", ") || "nothing"}`;
const EXPECTED = "end of consent in 180 days, and a read that spends nothing";
const FOUND = "end of consent empty at sign-in, empty after a refresh; reading the access token spent rft.1";
console.log(`expected: ${EXPECTED}`);
console.log(`seen:     ${seen} (the read answered ${read.status})`);
process.exit(seen === FOUND ? 0 : 1);
JS
echo "versions: node $(node --version), better-auth $(node -p 'JSON.parse(fs.readFileSync("node_modules/better-auth/package.json")).version')"
node sign_in.mjs || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
