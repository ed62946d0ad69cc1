#!/usr/bin/env bash
# No common TikTok client asks for the scope that videos need, so most stored tokens cannot ask for a cover.
#
# Libraries: PyPI django-allauth 65.21.1 (Django 5.2.19); npm @auth/core 0.41.3, better-auth 1.7.25, passport-tiktok-auth 1.0.12.
# Documentation: each is said to sign a user in with TikTok and to keep the tokens for calls of its API.
# Surprise: as configured in their own examples, all four ask for user.info.… only, two of them not for the same one: none
#   for video.list. The tokens are good, their expiry is right, and /v2/video/query/ refuses each of them.
#   All four key users by open_id; one also offers union_id beside it, which an application may store instead.
# The refresher: parks such an account as needs_scope at the first refusal, which costs one request, and not as one whose
#   tokens are dead; new tokens make it active again. A row that is named by a union_id works on and is said once.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet 'django-allauth[socialaccount]==65.21.1' Django==5.2.19
npm install --silent --no-audit --no-fund --ignore-scripts @auth/core@0.41.3 better-auth@1.7.25 passport-tiktok-auth@1.0.12

cat > allauth.txt <<'PY'
import django
from django.conf import settings
from django.core.management import call_command
from django.test import Client

settings.configure(
    SECRET_KEY="made-up",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="allauth.urls",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions", "messages")]
    + ["allauth", "allauth.account", "allauth.socialaccount", "allauth.socialaccount.providers.tiktok"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "allauth.account.middleware.AccountMiddleware"],
    SOCIALACCOUNT_LOGIN_ON_GET=True,
    SOCIALACCOUNT_PROVIDERS={"tiktok": {"APPS": [{"client_id": "key", "secret": "secret"}]}},
)
django.setup()
call_command("migrate", verbosity=0)
print(Client().get("/tiktok/login/")["Location"])
PY
cat > clients.mjs <<'JS'
import { createRequire } from "node:module";
import { Auth } from "@auth/core";
import TikTok from "@auth/core/providers/tiktok";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";

// Each client makes the address that it would send a user to; no request is sent.
const app = { clientID: "key", clientSecret: "secret", callbackURL: "http://app.test/callback" };
const { Strategy } = createRequire(import.meta.url)("passport-tiktok-auth");
const strategy = new Strategy(app, () => {});
const passport = new Promise((resolve) => { strategy.redirect = resolve; });
strategy.authenticate({ query: {}, session: {}, headers: {} }, {});

const config = { basePath: "/auth", trustHost: true, secret: "made-up-secret-of-thirty-two-chars",
  providers: [TikTok({ clientId: "key", clientSecret: "secret" })] };
const csrf = await Auth(new Request("http://app.test/auth/csrf"), config);
const cookie = csrf.headers.getSetCookie().map((one) => one.split(";")[0]).join("; ");
const signIn = await Auth(new Request("http://app.test/auth/signin/tiktok", { method: "POST", headers: { cookie },
  body: new URLSearchParams(await csrf.json()) }), config);

const better = betterAuth({ baseURL: "http://app.test", secret: "made-up-0123456789-ABCDEFGHIJ-klmnop", telemetry: { enabled: false },
  logger: { level: "error" }, database: memoryAdapter({ user: [], session: [], account: [], verification: [] }),
  socialProviders: { tiktok: { clientKey: "key", clientSecret: "secret" } } });
const { url } = await better.api.signInSocial({ body: { provider: "tiktok", callbackURL: "/" } });

console.log(`@auth/core ${signIn.headers.get("location")}\nbetter-auth ${url}\npassport-tiktok-auth ${await passport}`);
JS
versions() { node -p "['@auth/core', 'better-auth', 'passport-tiktok-auth'].map((n) => n + ' ' + JSON.parse(fs.readFileSync('node_modules/' + n + '/package.json')).version).join(', ')"; }
echo "versions: django-allauth 65.21.1, $(versions)"
{ echo "django-allauth $(venv/bin/python - < allauth.txt)"; node clients.mjs; } > addresses
seen=$(venv/bin/python - addresses <<'PY'
import sys
from urllib.parse import parse_qs, urlsplit

for line in open(sys.argv[1]):
    name, url = line.split()
    print(name, *sorted(parse_qs(urlsplit(url).query)["scope"][0].split(",")))
PY
)
EXPECTED='video.list among each list'
FOUND='django-allauth user.info.basic user.info.profile
@auth/core user.info.basic
better-auth user.info.profile
passport-tiktok-auth user.info.basic'
printf 'expected: %s\nseen:\n%s\n' "$EXPECTED" "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
