// The frame of every page: readable without JavaScript, light and dark, no request to another host.
import type { Child } from "hono/jsx";

export const Layout = (props: { title: string; children?: Child }) => (
  <html lang="en">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width, initial-scale=1" />
      <meta name="color-scheme" content="light dark" />
      <title>{props.title}</title>
      <link rel="stylesheet" href="/assets/page.css" />
      <link rel="icon" href="/assets/icon.svg" type="image/svg+xml" />
    </head>
    <body>
      <header>
        <a href="/">Tiller</a>
      </header>
      <main>{props.children}</main>
    </body>
  </html>
);
