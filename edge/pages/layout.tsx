// The frame of every page: readable without JavaScript, light and dark, no request to another host.
import type { Child } from "hono/jsx";

/** What other sites show of a link to the page: Open Graph tags, and where its oEmbed answer is. */
export interface Preview {
  readonly description: string;
  /** The page's own address, without a query. */
  readonly url: string;
  /** Address of the oEmbed answer; absent where the page cannot be embedded. */
  readonly oembed?: string;
}

export interface LayoutProps {
  readonly title: string;
  readonly preview?: Preview | undefined;
  /** Inside another site's frame: no header, and links open outside of the frame. */
  readonly embed?: boolean | undefined;
  readonly children?: Child;
}

export const Layout = ({ title, preview, embed, children }: LayoutProps) => (
  <html lang="en">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width, initial-scale=1" />
      <meta name="color-scheme" content="light dark" />
      <title>{title}</title>
      {preview === undefined ? null : <PreviewTags title={title} preview={preview} />}
      <link rel="stylesheet" href="/assets/page.css" />
      <link rel="icon" href="/assets/icon.svg" type="image/svg+xml" />
      {embed ? <base target="_blank" /> : null}
    </head>
    <body class={embed ? "embed" : undefined}>
      {embed ? null : (
        <header>
          <a href="/">Tiller</a>
          <a href="/account">Account</a>
        </header>
      )}
      <main>{children}</main>
    </body>
  </html>
);

const PreviewTags = ({ title, preview }: { title: string; preview: Preview }) => (
  <>
    <meta name="description" content={preview.description} />
    <link rel="canonical" href={preview.url} />
    <meta property="og:type" content="website" />
    <meta property="og:site_name" content="Tiller" />
    <meta property="og:title" content={title} />
    <meta property="og:description" content={preview.description} />
    <meta property="og:url" content={preview.url} />
    <meta name="twitter:card" content="summary" />
    {preview.oembed === undefined ? null : <link rel="alternate" type="application/json+oembed" href={preview.oembed} title={title} />}
  </>
);
