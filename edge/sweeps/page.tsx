// The page of a sweep: while it runs how far it is, at its end what is suggested, the plots, and every text.

import type { JobOf } from "../jobs/store.ts";
import type { SweptCell } from "../jobs/stored.ts";
import { Layout, type Preview } from "../pages/layout.tsx";
import { BASELINE, cellAt } from "./cells.ts";
import type { SweepResult } from "./contract.ts";
import { Cells, Rows, Texts } from "./page-cells.tsx";
import { Suggestion } from "./page-suggestion.tsx";
import { columnNames } from "./plot-data.ts";
import { DosePlot } from "./plot-dose.tsx";
import { HeatMap } from "./plot-heat.tsx";
import { PAGE } from "./plot-parts.tsx";
import { formatNumber } from "./scale.ts";

export type SweepJob = JobOf<"sweep">;

export interface SweepPageProps {
  readonly job: SweepJob;
  readonly origin: string;
  readonly preview: Preview;
  readonly embed: boolean;
  /** What it has found, while it has no result. */
  readonly found: readonly SweptCell[];
}

/** Plots are drawn twice, and the style sheet shows the one whose letters can be read: widths of both. */
const WIDTHS = { wide: 940, narrow: 340 };
/** Texts shown of a sweep that runs: the newest. */
const NEWEST = 24;
const REFRESH_SECONDS = 3;
const LABELS = 2;

export function nameOfSweep({ plan, model_id }: SweepJob): string {
  const labels = [...new Set(plan.sweep.columns.map(({ label }) => label))];
  const more = labels.length - LABELS;
  const named = labels.slice(0, more > 0 ? LABELS : labels.length).join(", ");
  return `Strengths of ${named}${more > 0 ? ` and ${more} more` : ""}, ${model_id}`;
}

/** What other sites say of it. */
export const summaryOf = ({ result, state }: SweepJob): string =>
  result === null ? `A sweep that is ${state}.` : (result.suggested?.sentence ?? `${result.cells.length} ways to steer, compared.`);

export const SweepPage = (props: SweepPageProps) => {
  const { job, preview, embed, origin } = props;
  const { result } = job;
  const runs = job.state === "queued" || job.state === "running";
  return (
    <Layout title={nameOfSweep(job)} preview={preview} embed={embed} refresh={runs ? REFRESH_SECONDS : undefined}>
      <h1>{nameOfSweep(job)}</h1>
      <p class="quiet">
        {extentOf(job)}
        {job.plan.sweep.success === undefined ? "" : ` A text is a success when ${job.plan.sweep.success}.`}
      </p>
      {result === null ? (
        <Unfinished {...props} />
      ) : (
        <>
          <Suggestion job={job} result={result} origin={origin} brief={embed} />
          <Plots result={result} />
          {embed ? (
            <p>
              <a href={preview.url}>Open on Tiller</a>
            </p>
          ) : (
            <>
              <Cells result={result} />
              <Texts result={result} />
              <Settings job={job} />
              <p>
                <a href={result.csvUrl}>All texts as CSV</a>, <a href={`${preview.url}/plot.png`}>the plot as a picture</a>, and for whoever
                made it <a href={`${origin}/api/sweeps/${job.id}`}>the result as JSON</a>.
              </p>
            </>
          )}
        </>
      )}
    </Layout>
  );
};

/** What was varied, in a line. */
function extentOf({ plan, tokens_total }: SweepJob): string {
  const { columns, body } = plan.sweep;
  const parts: [number, string][] = [
    [body.strengths.length, "strength"],
    [new Set(columns.map(({ direction }) => direction)).size, "direction"],
    [new Set(columns.map(({ layer }) => layer)).size, "layer"],
    [body.methods.length, "method"],
    [body.prompts.length, "prompt"],
    [body.seeds.length, "seed"],
  ];
  const varied = parts
    .filter(([count], place) => count > 1 || place === 0)
    .map(([count, noun]) => `${count} ${noun}${count > 1 ? "s" : ""}`);
  return `${varied.join(", ")}: ${tokens_total} texts with the baseline's.`;
}

const Plots = ({ result }: { result: SweepResult }) => (
  <section>
    <h2>What strength does</h2>
    {Object.entries(WIDTHS).map(([name, width]) => (
      <div class={`plot ${name}`}>
        <DosePlot result={result} theme={PAGE} width={width} />
      </div>
    ))}
    {result.methods.map((method, place) => (
      <>
        {result.methods.length > 1 ? <h2>{method}</h2> : null}
        {Object.entries(WIDTHS).map(([name, width]) => (
          <div class={`plot scroll ${name}`}>
            <HeatMap result={result} method={method} theme={PAGE} width={width} id={`over-${name}-${place}`} />
          </div>
        ))}
      </>
    ))}
    <p class="quiet">
      Hatched: a perplexity above {formatNumber(result.maxPerplexityRatio)} times the baseline's.
      {result.cells.some(({ metrics }) => metrics === null) ? " ×: failed." : ""}
      {result.suggested === null ? "" : " Framed: suggested."} Point at a cell to read its texts.
    </p>
  </section>
);

/** How far it is, or why there is no result, and its newest texts. */
const Unfinished = ({ job, found }: SweepPageProps) => {
  const { state, tokens_done, tokens_total, error_message, plan } = job;
  const names = columnNames(plan.sweep.columns);
  const nameOf = (number: number) => {
    if (number === BASELINE) return "baseline";
    const { column, method, strength } = cellAt(plan.sweep, number);
    return `${names[column]}, ${method}, strength ${formatNumber(strength)}`;
  };
  const texts = found.flatMap(({ cell, rows }) => rows.map((row) => ({ name: nameOf(cell), ...row })));
  return (
    <>
      {state === "failed" ? <p class="failed">This sweep failed: {error_message}</p> : null}
      {state === "canceled" ? <p class="failed">This sweep was canceled.</p> : null}
      {state === "queued" ? <p>It waits for its turn. This page asks again by itself.</p> : null}
      {state === "running" ? (
        <p>
          <progress value={tokens_done} max={tokens_total} /> {tokens_done} of {tokens_total} texts. This page asks again by itself.
        </p>
      ) : null}
      {texts.length === 0 ? null : (
        <>
          <h2>{texts.length > NEWEST ? "The newest texts" : "Texts so far"}</h2>
          <Rows prompts={plan.sweep.body.prompts} rows={texts.slice(-NEWEST).reverse()} />
        </>
      )}
    </>
  );
};

const Settings = ({ job }: { job: SweepJob }) => {
  const { prompts: _, modelId, ...settings } = job.plan.sweep.body;
  return (
    <section>
      <h2>Settings</h2>
      <table class="facts">
        <tbody>
          {Object.entries({ model: modelId, ...settings }).map(([name, value]) => (
            <tr>
              <th>{name}</th>
              <td>
                {Array.isArray(value) ? value.map(String).join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
};
