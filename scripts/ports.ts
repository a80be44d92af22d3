// Ports of this machine's loopback address.
import { createServer } from "node:net";

export const HOST = "127.0.0.1";

/**
 * A port that can be listened on: the one asked for, or any when 0 is asked for.
 * @throws Error, one sentence that names `option`, when it is taken.
 */
export function claimPort(port: number, what: string, option: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", (error: NodeJS.ErrnoException) => {
      const reason = error.code === "EADDRINUSE" ? "is in use" : `cannot be listened on (${error.code})`;
      const way = `stop what uses it or choose another: npm start -- ${option} ${port + 10}`;
      reject(new Error(`Port ${port}, where the ${what} listens, ${reason}: ${way}`));
    });
    probe.listen(port, HOST, () => {
      const address = probe.address();
      const claimed = typeof address === "object" && address !== null ? address.port : port;
      probe.close(() => resolve(claimed));
    });
  });
}
