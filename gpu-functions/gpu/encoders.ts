// The autoencoders that a PyTorch process holds: sent to it when they are first asked for, the least recently used make room.
import { randomUUID } from "node:crypto";
import { LIMITS } from "../../shared/protocol.ts";
import type { EncoderStore } from "../cpu/model.ts";
import { type Activation, decoderNorms, type Encoded, type LatentEncoder, type Sae } from "../cpu/sae.ts";
import { readTensor } from "../cpu/safetensors.ts";
import { type Device, deviceFailed } from "./device.ts";
import type { DeviceOf } from "./runner.ts";

/** Autoencoders of one model that the device keeps. */
const KEPT = 4;

export class DeviceEncoders implements EncoderStore {
  private readonly deviceOf: DeviceOf;
  /** Least recently used first. They belong to one process: another has none of them. */
  private kept = new Map<Sae, string>();
  private of: Device | undefined;
  private turn: Promise<unknown> = Promise.resolve();

  constructor(deviceOf: DeviceOf) {
    this.deviceOf = deviceOf;
  }

  use<T>(sae: Sae, work: (encoder: LatentEncoder) => Promise<T>): Promise<T> {
    const result = this.turn.then(async () => {
      const device = await this.deviceOf();
      const key = this.take(device, sae);
      return work({ latents: sae.latents, encode: (residuals) => encode(device, key, sae, residuals) });
    });
    this.turn = result.catch(() => undefined);
    return result;
  }

  private take(device: Device, sae: Sae): string {
    if (this.of !== device) this.kept = new Map();
    this.of = device;
    const key = this.kept.get(sae) ?? send(device, sae);
    this.kept.delete(sae);
    this.kept.set(sae, key);
    const [oldest] = this.kept;
    if (this.kept.size > KEPT && oldest !== undefined) {
      this.kept.delete(oldest[0]);
      device.send({ do: "forget_sae", key: oldest[1] });
    }
    return key;
  }
}

function send(device: Device, sae: Sae): string {
  const key = randomUUID();
  const { width, latents, encoder, input, activation } = sae;
  const matrix = readTensor(encoder.file, encoder.name);
  const vectors: Record<string, Float32Array> = { ...vectorsOf(activation) };
  if (sae.folded) vectors.norms = decoderNorms(sae);
  if (input.bias !== undefined) vectors.input_bias = input.bias;
  const shapes = Object.entries(vectors).map(([name, { length }]) => [name, [length]] as const);
  const fields = {
    ...{ do: "sae", key, latents_first: encoder.latentsFirst },
    tensors: { encoder: encoder.latentsFirst ? [latents, width] : [width, latents], ...Object.fromEntries(shapes) },
    settings: {
      ...{ kind: activation.kind, k: activation.kind === "topk" ? activation.k : null },
      ...{ centre: input.centre, scale: input.scale, per_token: input.perToken ?? null },
    },
  };
  device.send(fields, [matrix, ...Object.values(vectors)].map(bytesOf));
  return key;
}

function vectorsOf(activation: Activation): Record<string, Float32Array> {
  if (activation.kind === "gated")
    return { gate_bias: activation.gateBias, magnitude_bias: activation.magnitudeBias, log_scale: activation.logScale };
  return activation.kind === "jumprelu" ? { bias: activation.bias, threshold: activation.threshold } : { bias: activation.bias };
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array) => new Uint8Array(buffer, byteOffset, byteLength);

function encode(device: Device, key: string, { width, latents }: Sae, residuals: Float32Array): Promise<Encoded> {
  const tokens = residuals.length / width;
  return new Promise((resolve, reject) => {
    const id = randomUUID();
    void device.ended.then((reason) => reject(deviceFailed(reason)));
    device.ask(id, { do: "encode", key, top: LIMITS.topLatents }, [bytesOf(residuals)], (told, binary) => {
      device.forget(id);
      const top = told.top as number;
      const sizes = [tokens * latents, latents, tokens * top];
      const [all = 0, each = 0, ranked = 0] = sizes;
      const floats = new Float32Array(binary.buffer, binary.byteOffset, all + each + ranked);
      const ids = new Int32Array(binary.buffer, binary.byteOffset + 4 * (all + each + ranked), ranked);
      const values = floats.subarray(all + each);
      resolve({
        activations: floats.subarray(0, all),
        greatest: floats.subarray(all, all + each),
        top: (t) => {
          const found = [];
          for (let i = t * top; i < (t + 1) * top && (values[i] as number) > 0; i++)
            found.push({ index: ids[i] as number, activation: values[i] as number });
          return found;
        },
      });
    });
  });
}
