// Where the webhooks of the jobs go.
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Webhook } from "standardwebhooks";

/** What receivers were told: by webhook-id, and by job. */
export class Receiver {
  readonly told = new Map<string, Map<string, string>>();
  deliveries = 0;
  badSignatures = 0;
  private readonly server: Server;
  private secrets: readonly string[] = [];

  constructor() {
    this.server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      try {
        for await (const chunk of request) chunks.push(chunk as Buffer);
      } catch {
        // The sender was killed in the middle.
        return;
      }
      this.take(Buffer.concat(chunks).toString("utf8"), request.headers as Record<string, string>);
      response.writeHead(204).end();
    });
  }

  async listen(): Promise<string> {
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/hook`;
  }

  trust(secrets: readonly string[]): void {
    this.secrets = secrets;
  }

  close(): void {
    this.server.closeAllConnections();
    this.server.close();
  }

  private take(body: string, headers: Record<string, string>): void {
    this.deliveries++;
    const good = this.secrets.some((secret) => {
      try {
        new Webhook(secret).verify(body, headers);
        return true;
      } catch {
        return false;
      }
    });
    if (!good) this.badSignatures++;
    const event = JSON.parse(body) as { type: string; data: { id: string; result: { STEERED: string; DEFAULT: string } | null } };
    const results = this.told.get(event.data.id) ?? new Map<string, string>();
    results.set(JSON.stringify([event.type, event.data.result?.STEERED, event.data.result?.DEFAULT]), headers["webhook-id"] ?? "");
    this.told.set(event.data.id, results);
  }
}
