// How fast this machine reads memory: threads scan one large buffer for a byte that is not in it (memchr of the C library, which
// reads and does nothing else). What a decode step cannot beat.
import { Worker } from "node:worker_threads";

const BYTES_PER_THREAD = 256 * 2 ** 20;

const SCANNER = `
const { parentPort, workerData } = require("node:worker_threads");
const bytes = Buffer.from(workerData.shared, workerData.offset, workerData.length);
bytes.fill(1);
const control = new Int32Array(workerData.control);
parentPort.on("message", () => {
  // All start together: a thread that ran before the others would have the memory to itself.
  Atomics.add(control, 0, 1);
  while (Atomics.load(control, 0) < workerData.threads);
  const started = performance.timeOrigin + performance.now();
  if (bytes.indexOf(2) !== -1) throw new Error("found a byte that is not there");
  parentPort.postMessage([started, performance.timeOrigin + performance.now()]);
});
parentPort.postMessage("ready");
`;

/** Bytes per second that `threads` threads read together; one value per pass. */
export async function measureBandwidth(threads: number, passes: number): Promise<number[]> {
  const shared = new SharedArrayBuffer(BYTES_PER_THREAD * threads);
  const control = new SharedArrayBuffer(4);
  const workers = Array.from(
    { length: threads },
    (_, i) =>
      new Worker(SCANNER, { eval: true, workerData: { shared, control, threads, offset: i * BYTES_PER_THREAD, length: BYTES_PER_THREAD } }),
  );
  const next = <T>(worker: Worker): Promise<T> =>
    new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
  try {
    await Promise.all(workers.map((worker) => next<string>(worker)));
    const results: number[] = [];
    for (let pass = 0; pass < passes; pass++) {
      new Int32Array(control)[0] = 0;
      const answers = workers.map((worker) => next<[number, number]>(worker));
      for (const worker of workers) worker.postMessage("go");
      const times = await Promise.all(answers);
      const seconds = (Math.max(...times.map(([, end]) => end)) - Math.min(...times.map(([begin]) => begin))) / 1000;
      results.push((BYTES_PER_THREAD * threads) / seconds);
    }
    return results;
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}
