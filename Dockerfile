# Postern in a container: needs a Postgres server (DATABASE_URL or DATABASE_URL_FILE) and nothing else.
#
# The base is Debian's current stable release rather than Alpine Linux: Node.js itself builds and tests for glibc, while
# the builds for musl are unofficial. The image holds no embedded Postgres.

FROM node:24-trixie-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
# No package needs its install script: argon2 brings prebuilt binaries. Ours, `prepare`, has nothing to build yet.
# Optional packages too: the program of esbuild is one (docs/decisions/0018).
RUN npm ci --ignore-scripts
COPY tsconfig.json bundle.js ./
COPY src src
COPY migrations migrations
RUN npm run build -- --no-source-maps

FROM node:24-trixie-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts
COPY views views
# A checkout may be readable by its owner alone; the server runs as another user.
RUN chmod -R a+rX .

FROM node:24-trixie-slim
LABEL org.opencontainers.image.title="Postern" \
      org.opencontainers.image.description="OAuth 2.1 authorization server for the Model Context Protocol" \
      org.opencontainers.image.licenses="MIT"
# Eight threads: passwords are hashed on them, and file reads and look-ups of names must not wait for that.
ENV NODE_ENV=production HOST=0.0.0.0 UV_THREADPOOL_SIZE=8 npm_config_update_notifier=false
# Less memory at the same speed. Requests are short, so a young generation of 4 MiB does; and glibc gives blocks from 1 MiB
# on back at once, such as the 19 MiB in which a password is hashed.
ENV NODE_OPTIONS=--max-semi-space-size=4 MALLOC_MMAP_THRESHOLD_=1048576
WORKDIR /app
COPY --from=dependencies /app ./
COPY --from=build /app/dist dist
RUN ln -s /app/dist/src/cli.js /usr/local/bin/postern
# The user `node`, by number: Kubernetes' runAsNonRoot can't judge a name. Nothing in the image belongs to it.
USER 1000:1000
EXPOSE 3000
# All addresses are below the issuer's path. Liveness, not readiness: a restart does not bring the database back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["node", "-e", "\
  const { ISSUER, HOST, PORT } = process.env;\
  const path = require('path').join(new URL(ISSUER || 'http://localhost').pathname, 'health/live');\
  require('http')\
    .get({ host: HOST || 'localhost', port: PORT || 3000, path }, (answer) => process.exit(answer.statusCode === 200 ? 0 : 1))\
    .on('error', () => process.exit(1))"]
# No shell in between, so that SIGTERM reaches the server. Any other command replaces this one: `postern user list`.
ENTRYPOINT []
CMD ["postern", "serve"]
