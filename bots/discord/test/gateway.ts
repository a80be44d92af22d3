// The fake Discord's gateway: one bot, its connection lost and found again. https://discord.com/developers/docs/events/gateway
import type { Server } from "node:http";
import { type WebSocket, WebSocketServer } from "ws";

const MESSAGE_CONTENT = 1 << 15;
const HEARTBEAT_MS = 45_000;

export interface FakeGateway {
  /** Sends an event, now or when the connection is resumed. Lost when nobody is identified. */
  dispatch(event: string, data: object): void;
  /** Intents that the bot asked for. */
  intents(): number;
  /** Ends the connection; the bot may resume it. */
  drop(): void;
  readonly identified: number;
  readonly resumed: number;
  close(): void;
}

interface Options {
  readonly token: string;
  readonly user: object;
  readonly applicationId: string;
  readonly allowMessageContent: boolean;
  readonly url: () => string;
}

export function startGateway(server: Server, { token, user, applicationId, allowMessageContent, url }: Options): FakeGateway {
  const sockets = new WebSocketServer({ server, path: "/gateway" });
  const session = "session-of-the-tests";
  let socket: WebSocket | undefined;
  let sent: { readonly s: number; readonly t: string; readonly d: object }[] = [];
  let intents = 0;
  let known = false;
  const counts = { identified: 0, resumed: 0 };
  const send = (payload: object) => socket?.send(JSON.stringify(payload));
  const dispatch = (t: string, d: object) => {
    if (!known) return;
    const event = { s: sent.length + 1, t, d };
    sent.push(event);
    send({ op: 0, ...event });
  };

  sockets.on("connection", (connection) => {
    socket = connection;
    connection.on("close", () => {
      if (socket === connection) socket = undefined;
    });
    send({ op: 10, d: { heartbeat_interval: HEARTBEAT_MS } });
    connection.on("message", (raw) => {
      const { op, d } = JSON.parse(String(raw)) as { op: number; d: { token: string; intents: number; seq: number } };
      if (op === 1) return send({ op: 11 });
      if (op === 2) {
        if (d.token !== token) return connection.close(4004, "Authentication failed.");
        if ((d.intents & MESSAGE_CONTENT) !== 0 && !allowMessageContent) return connection.close(4014, "Disallowed intent(s).");
        [intents, known, sent] = [d.intents, true, []];
        counts.identified++;
        const application = { id: applicationId, flags: 0 };
        return dispatch("READY", { v: 10, user, guilds: [], session_id: session, resume_gateway_url: url(), application });
      }
      if (op !== 6) return;
      counts.resumed++;
      for (const event of sent.filter(({ s }) => s > d.seq)) send({ op: 0, ...event });
      dispatch("RESUMED", {});
    });
  });

  return {
    dispatch,
    intents: () => intents,
    drop: () => socket?.terminate(),
    get identified() {
      return counts.identified;
    },
    get resumed() {
      return counts.resumed;
    },
    close() {
      for (const each of sockets.clients) each.terminate();
      sockets.close();
    },
  };
}
