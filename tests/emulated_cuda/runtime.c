// A CUDA runtime without a GPU, to be preloaded: device memory is the host's, and streams have nothing to wait for.
//
// It serves what torch keeps books with: devices, memory, streams, events, copies. Kernels are not run: a launch fails,
// so that an operator which operators.py has not taken over is an error and no wrong number. EMULATED_GPUS says how many
// devices there are, 1 by default. What torch calls and is missing here reaches NVIDIA's own runtime, and fails.

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cuda.h>
#include <cuda_runtime_api.h>

#define TOTAL_MEMORY (80ul << 30)
#define ALIGNMENT 512
#define MOST_BLOCKS 65536
#define SUCCEEDS(name, ...) \
  cudaError_t name(__VA_ARGS__) { return cudaSuccess; }

// Devices

static __thread int current_device = 0;

static int devices(void) {
  const char *stated = getenv("EMULATED_GPUS");
  return stated ? atoi(stated) : 1;
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = devices();
  return *count ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDevice(int *device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}

// An H100, as far as torch asks.
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
  memset(found, 0, sizeof *found);
  strcpy(found->name, "Emulated H100");
  memset(found->uuid.bytes, device + 1, sizeof found->uuid.bytes);
  found->major = 9;
  found->totalGlobalMem = TOTAL_MEMORY;
  found->multiProcessorCount = 132;
  found->maxThreadsPerMultiProcessor = 2048;
  found->maxThreadsPerBlock = 1024;
  found->warpSize = 32;
  found->sharedMemPerBlock = 48 << 10;
  found->sharedMemPerBlockOptin = 227 << 10;
  found->regsPerMultiprocessor = 65536;
  found->l2CacheSize = 50 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  *can = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

static cudaError_t version(int *found) {
  *found = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *found) { return version(found); }
cudaError_t cudaRuntimeGetVersion(int *found) { return version(found); }

CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
  *flags = 0;
  *active = 1;
  return CUDA_SUCCESS;
}

// Errors

static __thread cudaError_t last_error = cudaSuccess;

const char *cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorNotSupported ? "cudaErrorNotSupported" : "cudaError";
}

const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorNotSupported ? "emulated CUDA runs no kernels: operators.py has not taken this operator over"
                                        : "an error of emulated CUDA";
}

cudaError_t cudaPeekAtLastError(void) { return last_error; }

cudaError_t cudaGetLastError(void) {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                             cudaStream_t stream) {
  return last_error = cudaErrorNotSupported;
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *how, const void *kernel, void **arguments) {
  return last_error = cudaErrorNotSupported;
}

// What CUDA 13's compiler makes of kernel<<<…>>>(…).
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                               cudaStream_t stream) {
  return last_error = cudaErrorNotSupported;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
  *kernel = 0;
  return cudaSuccess;
}

// Waiting. How often torch has waited for the GPU by itself, as where it copies a list of numbers there.

long emulated_waits = 0;

static cudaError_t waited(void) {
  __atomic_add_fetch(&emulated_waits, 1, __ATOMIC_RELAXED);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) { return waited(); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return waited(); }

// Memory. Blocks are kept in a list, since whether a copy blocks depends on whether the host's side is pinned.

static struct block {
  char *start;
  size_t bytes;
  enum cudaMemoryType type;
} blocks[MOST_BLOCKS];
static int blocks_n = 0;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static cudaError_t allocated(void **start, size_t bytes, enum cudaMemoryType type) {
  if (posix_memalign(start, ALIGNMENT, bytes ? bytes : 1)) return cudaErrorMemoryAllocation;
  pthread_mutex_lock(&turn);
  int full = blocks_n == MOST_BLOCKS;
  if (!full) blocks[blocks_n++] = (struct block){*start, bytes, type};
  pthread_mutex_unlock(&turn);
  return full ? cudaErrorMemoryAllocation : cudaSuccess;
}

static cudaError_t freed(void *start) {
  pthread_mutex_lock(&turn);
  for (int i = 0; i < blocks_n; i++)
    if (blocks[i].start == start) {
      blocks[i] = blocks[--blocks_n];
      break;
    }
  pthread_mutex_unlock(&turn);
  free(start);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void **start, size_t bytes) { return allocated(start, bytes, cudaMemoryTypeDevice); }
cudaError_t cudaHostAlloc(void **start, size_t bytes, unsigned flags) {
  return allocated(start, bytes, cudaMemoryTypeHost);
}
cudaError_t cudaFree(void *start) { return freed(start); }
cudaError_t cudaFreeHost(void *start) { return freed(start); }

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *pointer) {
  memset(found, 0, sizeof *found);
  found->type = cudaMemoryTypeUnregistered;
  pthread_mutex_lock(&turn);
  for (int i = 0; i < blocks_n; i++)
    if ((char *)pointer >= blocks[i].start && (char *)pointer < blocks[i].start + blocks[i].bytes)
      found->type = blocks[i].type;
  pthread_mutex_unlock(&turn);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_now, size_t *total) {
  *free_now = *total = TOTAL_MEMORY;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device) {
  *pool = 0;
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *start, int value, size_t bytes, cudaStream_t stream) {
  memset(start, value, bytes);
  return cudaSuccess;
}

// Streams and events: names for work that is done already.

static void *new_handle(void) {
  static uintptr_t last = 0x1000;
  return (void *)__atomic_add_fetch(&last, 16, __ATOMIC_RELAXED);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
  *stream = new_handle();
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
  *priority = 0;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                     size_t *count) {
  return cudaStreamIsCapturing(stream, status);
}

SUCCEEDS(cudaStreamQuery, cudaStream_t stream)
SUCCEEDS(cudaStreamDestroy, cudaStream_t stream)
SUCCEEDS(cudaStreamWaitEvent, cudaStream_t stream, cudaEvent_t event, unsigned flags)
SUCCEEDS(cudaThreadExchangeStreamCaptureMode, enum cudaStreamCaptureMode *mode)

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  *event = new_handle();
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = 0;
  return cudaSuccess;
}

SUCCEEDS(cudaEventRecord, cudaEvent_t event, cudaStream_t stream)
SUCCEEDS(cudaEventRecordWithFlags, cudaEvent_t event, cudaStream_t stream, unsigned flags)
SUCCEEDS(cudaEventQuery, cudaEvent_t event)
SUCCEEDS(cudaEventSynchronize, cudaEvent_t event)
SUCCEEDS(cudaEventDestroy, cudaEvent_t event)
