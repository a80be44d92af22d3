// The only file that talks to ONNX Runtime: its C API, bound with koffi, on the library that onnxruntime-node ships.
// The package's own binding copies every output and blocks the event loop; the C API does neither, and lets past and present
// share one KV cache. Memory and tensors made here are not garbage collected: their owner releases them.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import koffi from "koffi";
import { DataType } from "./onnx.ts";

const LIBRARY: Record<string, string> = { linux: "libonnxruntime.so.1", darwin: "libonnxruntime.1.dylib", win32: "onnxruntime.dll" };
/** Any version up to the library's works: the table of functions is append-only. */
const API_VERSION = 22;
const ALIGNMENT = 64;
/** Failures come back as statuses with their text; ONNX Runtime need not print them too. */
const LOG_FATAL = 4;

type Pointer = bigint;
type Native = (...args: unknown[]) => unknown;
type AsyncNative = Native & { async: (...args: unknown[]) => void };

interface Api {
  readonly version: string;
  readonly environment: Pointer;
  readonly memoryInfo: Pointer;
  readonly allocator: Pointer;
  readonly call: Readonly<Record<keyof typeof FUNCTIONS, AsyncNative>>;
  /** koffi unloads a library whose object is collected, and functions taken from its table do not keep it alive. */
  readonly library: unknown;
}

/** Index in OrtApi (onnxruntime_c_api.h), return type, arguments. */
const FUNCTIONS = {
  GetErrorMessage: [2, "const char*", "void* status"],
  CreateEnv: [3, "void*", "int level, const char* id, _Out_ void** out"],
  CreateSessionFromArray: [8, "void*", "void* env, void* data, size_t bytes, void* options, _Out_ void** out"],
  Run: [
    9,
    "void*",
    "void* session, void* options, void* inNames, void* inputs, size_t inCount, void* outNames, size_t outCount, void* outputs",
  ],
  CreateSessionOptions: [10, "void*", "_Out_ void** out"],
  SetSessionGraphOptimizationLevel: [23, "void*", "void* options, int level"],
  SetIntraOpNumThreads: [24, "void*", "void* options, int threads"],
  CreateTensorWithDataAsOrtValue: [
    49,
    "void*",
    "void* info, void* data, size_t bytes, void* shape, size_t rank, int type, _Out_ void** out",
  ],
  CreateCpuMemoryInfo: [69, "void*", "int allocator, int type, _Out_ void** out"],
  AllocatorAlloc: [75, "void*", "void* allocator, size_t bytes, _Out_ void** out"],
  AllocatorFree: [76, "void*", "void* allocator, void* memory"],
  GetAllocatorWithDefaultOptions: [78, "void*", "_Out_ void** out"],
  ReleaseStatus: [93, "void", "void* status"],
  ReleaseSession: [95, "void", "void* session"],
  ReleaseValue: [96, "void", "void* value"],
  ReleaseSessionOptions: [100, "void", "void* options"],
  AddSessionConfigEntry: [130, "void*", "void* options, const char* key, const char* value"],
  AddInitializer: [150, "void*", "void* options, const char* name, void* value"],
  ReleasePrepackedWeightsContainer: [167, "void", "void* container"],
  CreatePrepackedWeightsContainer: [166, "void*", "_Out_ void** out"],
  CreateSessionFromArrayWithPrepackedWeightsContainer: [
    169,
    "void*",
    "void* env, void* data, size_t bytes, void* options, void* container, _Out_ void** out",
  ],
} as const satisfies Record<string, readonly [number, string, string]>;

let loaded: Api | undefined;

/** Binds the library on first use, so that a machine without it can still run everything else and read a clear sentence. */
function api(): Api {
  if (loaded !== undefined) return loaded;
  const root = path.dirname(createRequire(import.meta.url).resolve("onnxruntime-node/package.json"));
  const file = path.join(root, "bin", "napi-v6", process.platform, process.arch, LIBRARY[process.platform] ?? "libonnxruntime");
  if (!existsSync(file)) {
    throw new Error(
      `ONNX Runtime has no build for ${process.platform}-${process.arch}: linux and windows (x64, arm64) and macOS on Apple silicon have one.`,
    );
  }
  // Kernels recurse more than a default fiber stack allows.
  koffi.config({ sync_stack_size: 4 << 20, async_stack_size: 4 << 20 });
  const library = koffi.load(file);
  const base = library.func("void* OrtGetApiBase()")();
  const [getApi, getVersion] = koffi.decode(base, "void*", 2) as [Pointer, Pointer];
  const version = koffi.call(getVersion, koffi.proto("const char* OrtGetVersionString()")) as string;
  const table = koffi.call(getApi, koffi.proto("void* OrtGetApi(uint32_t version)"), API_VERSION) as Pointer;
  const size = Math.max(...Object.values(FUNCTIONS).map(([index]) => index)) + 1;
  const entries = koffi.decode(table, "void*", size) as Pointer[];
  const call = Object.fromEntries(
    Object.entries(FUNCTIONS).map(([name, [index, result, args]]) => [
      name,
      koffi.decode(entries[index], koffi.proto(`${result} Ort${name}(${args})`)) as AsyncNative,
    ]),
  ) as Api["call"];
  const partial = { version, library, call, environment: 0n, memoryInfo: 0n, allocator: 0n };
  loaded = partial;
  const environment = make("CreateEnv", LOG_FATAL, "tiller");
  const memoryInfo = make("CreateCpuMemoryInfo", 0, 0);
  loaded = { ...partial, environment, memoryInfo, allocator: make("GetAllocatorWithDefaultOptions") };
  return loaded;
}

function check(status: unknown): void {
  if (status === null || status === undefined || status === 0n) return;
  const { call } = api();
  const text = String(call.GetErrorMessage(status));
  call.ReleaseStatus(status);
  throw new Error(`ONNX Runtime: ${text}`);
}

/** Calls a function whose last argument is an out pointer and returns what it wrote there. */
function make(name: keyof typeof FUNCTIONS, ...args: unknown[]): Pointer {
  const out = [null] as [Pointer | null];
  check(api().call[name](...args, out));
  return out[0] as Pointer;
}

export const ortVersion = (): string => api().version;

/** Native memory with a stable address, aligned for vector instructions. The views die with `free()`. */
export class NativeMemory {
  readonly pointer: Pointer;
  readonly bytes: number;
  private readonly base: Pointer;
  private readonly buffer: ArrayBuffer;

  /** @param zeroed false leaves what is there, and with it pages that the system has not given yet. */
  constructor(bytes: number, zeroed = true) {
    this.bytes = Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
    // Not koffi's own: that ends at 2 GiB, which the token table of a large model exceeds.
    this.base = make("AllocatorAlloc", api().allocator, this.bytes + ALIGNMENT);
    this.pointer = (this.base + BigInt(ALIGNMENT - 1)) & ~BigInt(ALIGNMENT - 1);
    this.buffer = koffi.view(this.pointer, this.bytes);
    if (zeroed) new Uint8Array(this.buffer).fill(0);
  }

  float32(): Float32Array {
    return new Float32Array(this.buffer);
  }

  int32(): Int32Array {
    return new Int32Array(this.buffer);
  }

  uint8(): Uint8Array {
    return new Uint8Array(this.buffer);
  }

  free(): void {
    check(api().call.AllocatorFree(api().allocator, this.base));
  }
}

/** An OrtValue over a part of native memory: no copy, ever. */
export class Tensor {
  readonly handle: Pointer;

  /** @param offset in elements. */
  constructor(memory: NativeMemory, offset: number, shape: readonly number[], type: Exclude<DataType, typeof DataType.INT64>) {
    const count = shape.reduce((a, b) => a * b, 1);
    const size = type === DataType.UINT8 ? 1 : 4;
    if ((offset + count) * size > memory.bytes) throw new RangeError(`tensor [${shape}] at ${offset} does not fit ${memory.bytes} bytes`);
    const data = memory.pointer + BigInt(offset * size);
    this.handle = make(
      "CreateTensorWithDataAsOrtValue",
      api().memoryInfo,
      data,
      count * size,
      BigInt64Array.from(shape, BigInt),
      shape.length,
      type,
    );
  }

  release(): void {
    api().call.ReleaseValue(this.handle);
  }
}

/** Packed copies of weights, shared by the sessions that were created with it and given the same weight memory. */
export class PrepackedWeights {
  readonly handle: Pointer = make("CreatePrepackedWeightsContainer");

  release(): void {
    api().call.ReleasePrepackedWeightsContainer(this.handle);
  }
}

/** Inputs and outputs of one call, ready to run as often as wanted. */
export interface Binding {
  readonly inputNames: BigUint64Array;
  readonly inputs: BigUint64Array;
  readonly outputNames: BigUint64Array;
  readonly outputs: BigUint64Array;
}

export interface SessionOptions {
  readonly threads: number;
  /** Folder of the files that the graph's external weights name. */
  readonly weightsFolder: string;
  /** Weights by initializer name; they and their memory must outlive the session. */
  readonly weights: ReadonlyMap<string, Tensor>;
  readonly prepacked: PrepackedWeights;
}

/** A loaded graph. `run` keeps the event loop free; `runSync` is cheaper for calls of about a millisecond. */
export class Session {
  private readonly handle: Pointer;
  private readonly names = new Map<string, NativeMemory>();

  constructor(model: Uint8Array, options: SessionOptions) {
    const { call, environment } = api();
    const handle = make("CreateSessionOptions");
    try {
      check(call.SetSessionGraphOptimizationLevel(handle, 99));
      check(call.SetIntraOpNumThreads(handle, options.threads));
      // Idle workers of one session would otherwise spin on the cores that another session needs.
      check(call.AddSessionConfigEntry(handle, "session.force_spinning_stop", "1"));
      check(call.AddSessionConfigEntry(handle, "session.model_external_initializers_file_folder_path", options.weightsFolder));
      for (const [name, tensor] of options.weights) check(call.AddInitializer(handle, name, tensor.handle));
      this.handle = make(
        "CreateSessionFromArrayWithPrepackedWeightsContainer",
        environment,
        model,
        model.length,
        handle,
        options.prepacked.handle,
      );
    } finally {
      call.ReleaseSessionOptions(handle);
    }
  }

  bind(inputs: ReadonlyMap<string, Tensor>, outputs: ReadonlyMap<string, Tensor>): Binding {
    const names = (map: ReadonlyMap<string, Tensor>) => BigUint64Array.from(map.keys(), (name) => this.nameOf(name));
    const handles = (map: ReadonlyMap<string, Tensor>) => BigUint64Array.from(map.values(), (tensor) => tensor.handle);
    return { inputNames: names(inputs), inputs: handles(inputs), outputNames: names(outputs), outputs: handles(outputs) };
  }

  private nameOf(name: string): Pointer {
    let memory = this.names.get(name);
    if (memory === undefined) {
      const bytes = new TextEncoder().encode(`${name}\0`);
      memory = new NativeMemory(bytes.length);
      new Uint8Array(koffi.view(memory.pointer, bytes.length)).set(bytes);
      this.names.set(name, memory);
    }
    return memory.pointer;
  }

  runSync(b: Binding): void {
    check(api().call.Run(this.handle, null, b.inputNames, b.inputs, b.inputs.length, b.outputNames, b.outputs.length, b.outputs));
  }

  run(b: Binding): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error: unknown, status: unknown) => {
        try {
          if (error) throw error;
          check(status);
          resolve();
        } catch (failure) {
          reject(failure);
        }
      };
      api().call.Run.async(this.handle, null, b.inputNames, b.inputs, b.inputs.length, b.outputNames, b.outputs.length, b.outputs, done);
    });
  }

  release(): void {
    api().call.ReleaseSession(this.handle);
    for (const memory of this.names.values()) memory.free();
    this.names.clear();
  }
}
