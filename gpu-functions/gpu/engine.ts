// The GPU engine: the calls of the engine protocol on models that a PyTorch process computes.
import { type MemoryPlan, planMemory } from "../cpu/memory.ts";
import { type KnownModel, type Model, readModel } from "../cpu/model.ts";
import { ModelPool } from "../cpu/pool.ts";
import { type Engine, newEngine } from "../cpu/service.ts";
import { Device, type DeviceSettings, type Phases } from "./device.ts";
import { DeviceEncoders } from "./encoders.ts";
import type { Python } from "./python.ts";
import { DeviceRunner } from "./runner.ts";

export interface GpuEngineOptions extends Pick<DeviceSettings, "device" | "kernels" | "threads"> {
  /** The type of the matrices; "auto" is float16 where the checkpoint's are, which loses nothing, and bfloat16 elsewhere. */
  readonly dtype: DeviceSettings["dtype"] | "auto";
  /** Model directories in Hugging Face layout; a model's id is its directory's name. */
  readonly directories: readonly string[];
  /** The Python that has PyTorch. */
  readonly python: Python;
  /** Rows that run at once, at most; 64 when absent. */
  readonly slots?: number | undefined;
  /** What the KV cache of one model may take, in bytes. */
  readonly cacheBytes: number;
  /** What all loaded models together may take, in bytes of the device. */
  readonly memoryBytes: number;
  /** How many models are loaded at the start; all that fit when absent. */
  readonly warm?: number | undefined;
  readonly log: (line: string) => void;
}

/** A bucket of the CUDA graphs (step.py) holds no more. */
const MOST_SLOTS = 64;

export interface GpuEngine extends Engine {
  /** When each phase of the last start of each model was over, in milliseconds. */
  phases(): Record<string, Phases>;
  /** The process that computes each model that is loaded. */
  processes(): Record<string, number | undefined>;
}

/**
 * Reads every model and loads the first of them; the others are loaded when they are asked for.
 * @throws Error with the file or the reason when a model cannot be served.
 */
export async function loadGpuEngine(options: GpuEngineOptions): Promise<GpuEngine> {
  const devices: Record<string, Device> = {};
  const models = options.directories.map((directory) => knownModel(directory, options));
  const pool = new ModelPool(models, {
    open: (known) => openModel(known, options, (device) => Object.assign(devices, { [known.info.id]: device })),
    memoryBytes: options.memoryBytes,
    log: options.log,
  });
  await pool.warm(options.warm ?? Number.POSITIVE_INFINITY);
  const ofDevices = <T>(pick: (device: Device) => T) =>
    Object.fromEntries(Object.entries(devices).map(([id, device]) => [id, pick(device)]));
  return { ...newEngine(pool), phases: () => ofDevices(({ phases }) => phases), processes: () => ofDevices(({ pid }) => pid) };
}

function knownModel(directory: string, { dtype: wanted, cacheBytes, slots = MOST_SLOTS }: GpuEngineOptions): KnownModel {
  const known = readModel(directory, Number.MAX_SAFE_INTEGER, "none");
  const dtype = typeOf(known, wanted);
  const bytes = dtype === "float32" ? 4 : 2;
  const plan: MemoryPlan = planMemory(known.shape, known.checkpoint.parameters * bytes, cacheBytes, { most: slots, bytes });
  return { ...known, plan, info: { ...known.info, context: plan.cacheLength, rows: plan.slots, dtype } };
}

function typeOf({ checkpoint }: KnownModel, wanted: GpuEngineOptions["dtype"]): DeviceSettings["dtype"] {
  if (wanted !== "auto") return wanted;
  // Norms are often kept in float32, and masks in anything.
  const matrices = [...checkpoint.tensors.values()].filter(({ shape }) => shape.length === 2);
  return matrices.every(({ dtype }) => dtype === "F16") ? "float16" : "bfloat16";
}

async function openModel(known: KnownModel, options: GpuEngineOptions, started: (device: Device) => void): Promise<Model> {
  const { device, kernels, threads, python, log } = options;
  const dtype = typeOf(known, options.dtype);
  const { slots, cacheLength: context } = known.plan;
  const { id } = known.info;
  let closed = false;
  const start = async (): Promise<Device> => {
    const found = await Device.start({ directory: known.directory, device, dtype, kernels, threads, slots, context }, python, (line) =>
      log(`${id}: ${line}`),
    );
    started(found);
    void found.ended.then((reason) => {
      if (!closed) log(`${id}: ${reason}; it is started again when it is asked for.`);
      if (!closed) current = undefined;
    });
    return found;
  };
  let current: Promise<Device> | undefined = start();
  const deviceOf = (): Promise<Device> => {
    current ??= start().catch((error: unknown) => {
      current = undefined;
      throw error;
    });
    return current;
  };
  await current.catch((error: Error) => {
    throw new Error(`model '${id}': ${error.message}`, { cause: error });
  });
  const scheduler = new DeviceRunner(deviceOf, slots, known.shape);
  const close = async () => {
    closed = true;
    scheduler.close();
    await (await current?.catch(() => undefined))?.close();
  };
  return { ...known, scheduler, encoders: new DeviceEncoders(deviceOf), close };
}
