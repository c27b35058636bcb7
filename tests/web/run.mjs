// Runs ONNX models in onnxruntime-web (WebAssembly, one thread), each on a list of feeds.
//
//   node run.mjs
//
// Every line of stdin names a job.json; its answer is a line of stdout, "done" or {"error": what went wrong}. After an
// error the process ends: what WebAssembly is left with is nobody's to say.
//
// job.json: {"output": folder, "jobs": [{"model": path, "feeds": [[{"name", "type", "dims", "file"}, ...], ...]}, ...]}
// Tensors are raw little-endian files. Writes <output>/<job>-<feed>-<index>.bin and <output>/result.json, which holds
// {"version", "jobs": [[[{"name", "type", "dims", "file"}, ...], ...], ...]}.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import * as ort from 'onnxruntime-web';

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, int64: BigInt64Array, int32: Int32Array,
  uint8: Uint8Array, int8: Int8Array, bool: Uint8Array,
};

function arrayType(type) {
  const found = ARRAYS[type];
  if (found === undefined) throw new Error(`tensor type ${type} is not supported by this runner`);
  return found;
}

function readTensor({ type, dims, file }) {
  const bytes = new Uint8Array(readFileSync(file)); // a fresh buffer: aligned for every element type
  return new ort.Tensor(type, new (arrayType(type))(bytes.buffer, 0, bytes.byteLength / arrayType(type).BYTES_PER_ELEMENT), dims);
}

async function run(job) {
  const result = { version: ort.env.versions.web, jobs: [] };
  for (const [number, { model, feeds }] of job.jobs.entries()) {
    const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(model)), { executionProviders: ['wasm'] });
    const runs = [];
    for (const [turn, feed] of feeds.entries()) {
      const outputs = await session.run(Object.fromEntries(feed.map((tensor) => [tensor.name, readTensor(tensor)])));
      runs.push(session.outputNames.map((name, index) => {
        const { type, dims, data } = outputs[name];
        const file = join(job.output, `${number}-${turn}-${index}.bin`);
        writeFileSync(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
        return { name, type, dims, file };
      }));
    }
    await session.release();
    result.jobs.push(runs);
  }
  writeFileSync(join(job.output, 'result.json'), JSON.stringify(result));
}

ort.env.wasm.numThreads = 1;
ort.env.logLevel = 'error';
for await (const line of createInterface({ input: process.stdin })) {
  try {
    await run(JSON.parse(readFileSync(line, 'utf8')));
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ error: String(error?.stack ?? error) })}\n`);
    break;
  }
  process.stdout.write('"done"\n');
}
process.exit(0); // the WebAssembly module would keep node alive
