import koffi, { type LibraryHandle } from 'koffi';

/** Copies between host arrays and addresses on a CUDA device, as the gradients of another program would get there. */
export interface DeviceMemory {
  write(to: bigint, from: Float32Array): void;
  read(to: Float32Array, from: bigint): void;
}

/** Makes the device's primary context, which CUDA's runtime uses too, the current one of this thread. */
function bindContext(library: LibraryHandle, index: number, check: (status: number) => void): void {
  const context: unknown[] = [null];
  check((library.func('int cuInit(unsigned int flags)') as (flags: number) => number)(0));
  check(
    (
      library.func('int cuDevicePrimaryCtxRetain(_Out_ void** context, int device)') as (
        out: unknown[],
        device: number,
      ) => number
    )(context, index),
  );
  check((library.func('int cuCtxSetCurrent(void* context)') as (context: unknown) => number)(context[0]));
}

/**
 * @param emulated whether the addresses are in this process's own memory, as those of test/cuda-emulator are
 * @param index N of cuda:N
 */
export function deviceMemory(emulated: boolean, index = 0): DeviceMemory {
  const library = koffi.load(emulated ? 'libc.so.6' : 'libcuda.so.1');
  const [toDevice, toHost] = emulated ? ['memcpy', 'memcpy'] : ['cuMemcpyHtoD_v2', 'cuMemcpyDtoH_v2'];
  const write = library.func(`int ${toDevice}(uint64_t to, _In_ float* from, size_t bytes)`) as (
    to: bigint,
    from: Float32Array,
    bytes: number,
  ) => number;
  const read = library.func(`int ${toHost}(_Out_ float* to, uint64_t from, size_t bytes)`) as (
    to: Float32Array,
    from: bigint,
    bytes: number,
  ) => number;
  const check = (status: number) => {
    if (!emulated && status !== 0) throw new Error(`CUDA error ${status}`);
  };
  if (!emulated) bindContext(library, index, check);
  // A copy of pageable memory may still be under way when the call returns, and no stream of this package waits for it.
  const wait = emulated ? () => 0 : (library.func('int cuCtxSynchronize()') as () => number);
  return {
    write: (to, from) => {
      check(write(to, from, from.byteLength));
      check(wait());
    },
    read: (to, from) => {
      check(read(to, from, to.byteLength));
    },
  };
}
