// The frame of every page: readable without JavaScript, light and dark, no request to another host.
import type { Child } from "hono/jsx";

/** What other sites show of a link to the page: Open Graph tags, and where its oEmbed answer is. */
export interface Preview {
  readonly description: string;
  /** The page's own address, without a query. */
  readonly url: string;
  /** Address of the oEmbed answer; absent where the page cannot be embedded. */
  readonly oembed?: string;
  /** Address of a picture of it. */
  readonly image?: { readonly url: string; readonly width: number; readonly height: number };
}

export interface LayoutProps {
  readonly title: string;
  readonly preview?: Preview | undefined;
  /** Inside another site's frame: no header, and links open outside of the frame. */
  readonly embed?: boolean | undefined;
  /** Seconds after which the page is asked for again. */
  readonly refresh?: number | undefined;
  readonly children?: Child;
}

export const Layout = ({ title, preview, embed, refresh, children }: LayoutProps) => (
  <html lang="en">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width, initial-scale=1" />
      <meta name="color-scheme" content="light dark" />
      <title>{title}</title>
      {refresh === undefined ? null : <meta http-equiv="refresh" content={String(refresh)} />}
      {preview === undefined ? null : <PreviewTags title={title} preview={preview} />}
      <link rel="stylesheet" href="/assets/page.css" />
      <link rel="icon" href="/assets/icon.svg" type="image/svg+xml" />
      {embed ? <base target="_blank" /> : null}
    </head>
    <body class={embed ? "embed" : undefined}>
      {embed ? null : (
        <header>
          <a href="/">Tiller</a>
          <nav>
            <a href="/mix">Mixer</a> <a href="/account">Account</a>
          </nav>
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
    {preview.image === undefined ? null : (
      <>
        <meta property="og:image" content={preview.image.url} />
        <meta property="og:image:width" content={String(preview.image.width)} />
        <meta property="og:image:height" content={String(preview.image.height)} />
      </>
    )}
    <meta name="twitter:card" content={preview.image === undefined ? "summary" : "summary_large_image"} />
    {preview.oembed === undefined ? null : <link rel="alternate" type="application/json+oembed" href={preview.oembed} title={title} />}
  </>
);
