// The documentation page: Swagger UI, served from this host, over /openapi.json.
import { html } from "hono/html";

export const docsPage = () => html`<!doctype html>
  <html lang="en">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width, initial-scale=1" />
      <title>Tiller: API</title>
      <link rel="stylesheet" href="/assets/swagger-ui.css" />
      <link rel="icon" href="/assets/icon.svg" type="image/svg+xml" />
    </head>
    <body>
      <div id="docs"><p>The documentation needs JavaScript; the same document is at <a href="/openapi.json">/openapi.json</a>.</p></div>
      <script src="/assets/swagger-ui-bundle.js"></script>
      <script src="/assets/docs.js"></script>
    </body>
  </html>`;
