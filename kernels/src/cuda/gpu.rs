//! Decides how an open device is allocated on, queued to and asked, and how its faults become values.
//!
//! Every handle has one owner that gives it back; nothing waits but [`Gpu::finish`], which has a limit. After an error
//! that loses the context nothing is given back: the driver would wait for work that never ends, and the
//! worker process ends anyway. Refuses to hold more than one context.

use super::describe::Found;
use super::driver::{Driver, Failure, NOT_READY, Status};
use crate::error::KernelError;
use crate::timer::now_ns;
use core::ffi::{c_int, c_void};
use cudarc::driver::sys::{
    CUcontext, CUctx_flags, CUdevice, CUdeviceptr, CUevent, CUevent_flags, CUevent_record_flags,
    CUfunction, CUstream, CUstream_flags,
};
use hallmark_profiles::units::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest wait for work outside the steady state.
pub(super) const SETUP_LIMIT: Duration = Duration::from_secs(120);

/// Pause between two looks at work that has not ended.
const LOOK: Duration = Duration::from_micros(50);

/// An open device.
pub(super) struct Gpu {
    pub driver: Arc<Driver>,
    /// The engine's name of it.
    pub id: String,
    pub found: Found,
    context: CUcontext,
    lost: AtomicBool,
}

// SAFETY: a context may be current to any number of threads, and the driver's functions may be called from all of
// them (CUDA driver API, “Context management”); what Rust shares here is only the handle.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

impl Gpu {
    /// Opens the primary context of `found` and makes it current to this thread.
    pub fn open(driver: Arc<Driver>, found: Found, id: &str) -> Result<Arc<Self>, KernelError> {
        let device: CUdevice = found.device;
        let mut context: CUcontext = std::ptr::null_mut();
        // Threads that wait in the driver sleep, and leave the cores to the host's collective.
        let flags = CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as u32;
        // SAFETY: `device` is the driver's own number of a device; the context is written to a local. Flags are refused
        // where the context is active already, and then the present ones serve as well.
        let opened = unsafe {
            (driver.calls.cuDevicePrimaryCtxSetFlags_v2)(device, flags);
            let status = (driver.calls.cuDevicePrimaryCtxRetain)(&raw mut context, device);
            driver.ok(status, "open the device")
        };
        opened.map_err(|failure| failure.of(id))?;
        let gpu = Self {
            driver,
            id: id.to_owned(),
            found,
            context,
            lost: AtomicBool::new(false),
        };
        gpu.attach()?;
        Ok(Arc::new(gpu))
    }

    /// Makes the context current to this thread.
    pub fn attach(&self) -> Result<(), KernelError> {
        // SAFETY: the context is open for as long as this value lives.
        let status = unsafe { (self.driver.calls.cuCtxSetCurrent)(self.context) };
        self.ok(status, "make the device current to a thread")
    }

    /// A status as a result; a fault that loses the context is kept in mind.
    pub fn ok(&self, status: Status, doing: &'static str) -> Result<(), KernelError> {
        self.driver
            .ok(status, doing)
            .map_err(|failure| self.failed(failure))
    }

    fn failed(&self, failure: Failure) -> KernelError {
        if failure.is_fatal() {
            self.lost.store(true, Ordering::Relaxed);
        }
        failure.of(&self.id)
    }

    /// A refusal in words.
    pub fn refuse(&self, what: impl Into<String>) -> KernelError {
        KernelError::Device {
            device: self.id.clone(),
            what: what.into(),
        }
    }

    /// Marks the context as lost, so that nothing waits for it any more.
    pub fn give_up(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Whether the context is beyond use.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Memory of the device that nobody holds.
    pub fn free(&self) -> Result<Bytes, KernelError> {
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: two numbers are written to locals.
        let status = unsafe { (self.driver.calls.cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
        self.ok(status, "ask for free memory")?;
        Ok(Bytes(free as u64))
    }

    /// Device memory of at least one byte.
    pub fn memory(self: &Arc<Self>, bytes: u64) -> Result<Memory, KernelError> {
        let bytes = bytes.max(16).next_multiple_of(16);
        let mut at: CUdeviceptr = 0;
        // SAFETY: the address is written to a local.
        let status = unsafe { (self.driver.calls.cuMemAlloc_v2)(&raw mut at, bytes as usize) };
        match self.driver.ok(status, "allocate device memory") {
            Ok(()) => {}
            Err(failure) if failure.is_out_of_memory() => {
                return Err(KernelError::Memory {
                    device: self.id.clone(),
                    free: self.free().unwrap_or(Bytes(0)),
                    need: Bytes(bytes),
                });
            }
            Err(failure) => return Err(self.failed(failure)),
        }
        Ok(Memory {
            gpu: Arc::clone(self),
            at,
            bytes,
        })
    }

    /// Host memory that the device reads and writes directly.
    pub fn pinned(self: &Arc<Self>, bytes: u64) -> Result<Pinned, KernelError> {
        let bytes = bytes.max(16).next_multiple_of(16) as usize;
        let mut at: *mut c_void = std::ptr::null_mut();
        // SAFETY: the address is written to a local; flag 1 makes the memory known to every context.
        let status = unsafe { (self.driver.calls.cuMemHostAlloc)(&raw mut at, bytes, 1) };
        self.ok(status, "allocate host memory for copies")?;
        // SAFETY: `bytes` bytes at `at` were just allocated.
        unsafe { at.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned {
            gpu: Arc::clone(self),
            at,
            bytes,
        })
    }

    pub fn stream(self: &Arc<Self>) -> Result<Stream, KernelError> {
        let mut handle: CUstream = std::ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the handle is written to a local.
        let status = unsafe { (self.driver.calls.cuStreamCreate)(&raw mut handle, flags) };
        self.ok(status, "make a stream")?;
        Ok(Stream {
            gpu: Arc::clone(self),
            handle,
        })
    }

    pub fn event(self: &Arc<Self>) -> Result<Event, KernelError> {
        let mut handle: CUevent = std::ptr::null_mut();
        let flags = CUevent_flags::CU_EVENT_DEFAULT as u32;
        // SAFETY: the handle is written to a local.
        let status = unsafe { (self.driver.calls.cuEventCreate)(&raw mut handle, flags) };
        self.ok(status, "make an event")?;
        Ok(Event {
            gpu: Arc::clone(self),
            handle,
        })
    }

    /// Blocks of `threads` threads of this kernel that the whole device can hold at once.
    pub fn resident(&self, function: CUfunction, threads: u32) -> Result<u32, KernelError> {
        let mut blocks: c_int = 0;
        // SAFETY: one number is written to a local.
        let status = unsafe {
            (self
                .driver
                .calls
                .cuOccupancyMaxActiveBlocksPerMultiprocessor)(
                &raw mut blocks,
                function,
                threads as c_int,
                0,
            )
        };
        self.ok(status, "ask how many blocks fit")?;
        Ok(u32::try_from(blocks).unwrap_or(0) * self.found.multiprocessors)
    }

    /// Waits for everything queued to `stream` so far.
    pub fn finish(self: &Arc<Self>, stream: &Stream, limit: Duration) -> Result<(), KernelError> {
        let event = self.event()?;
        stream.record(&event)?;
        event.wait(limit)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if !self.is_lost() {
            // SAFETY: retained once when it was opened; everything made in it has been given back.
            unsafe { (self.driver.calls.cuDevicePrimaryCtxRelease_v2)(self.found.device) };
        }
    }
}

/// Device memory.
pub(super) struct Memory {
    gpu: Arc<Gpu>,
    pub at: CUdeviceptr,
    pub bytes: u64,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.gpu.is_lost() {
            // SAFETY: allocated by this value and used by nothing that outlives it.
            unsafe { (self.gpu.driver.calls.cuMemFree_v2)(self.at) };
        }
    }
}

/// Host memory pinned for copies.
pub(super) struct Pinned {
    gpu: Arc<Gpu>,
    at: *mut c_void,
    bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}
// SAFETY: shared access is by pointer or through `&mut`; see `Pinned::bytes`.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// What is in it.
    ///
    /// # Safety
    /// No copy to it may be under way.
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: allocated and zeroed by `Gpu::pinned`; the caller rules out a writer.
        unsafe { std::slice::from_raw_parts(self.at.cast::<u8>(), self.bytes) }
    }

    /// Writes `from` at its start.
    ///
    /// # Safety
    /// No copy from or to it may be under way, and nobody else writes it.
    pub unsafe fn write(&self, from: &[u8]) {
        let length = from.len().min(self.bytes);
        // SAFETY: within the allocation; the caller rules out other access.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.at.cast::<u8>(), length) };
    }

    /// The address `offset` bytes in.
    fn address(&self, offset: u64) -> *mut c_void {
        self.at.wrapping_byte_add(offset as usize)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if !self.gpu.is_lost() {
            // SAFETY: allocated by this value; copies that use it were queued by owners that outlived them.
            unsafe { (self.gpu.driver.calls.cuMemFreeHost)(self.at) };
        }
    }
}

/// A queue of the device.
pub(super) struct Stream {
    pub gpu: Arc<Gpu>,
    pub handle: CUstream,
}

// SAFETY: a stream may be queued to from any thread; see `Gpu`.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

/// Arguments of a kernel, each in a word of its own.
#[derive(Default)]
pub(super) struct Arguments {
    words: [u64; 12],
    count: usize,
}

impl Arguments {
    pub fn new(words: &[u64]) -> Self {
        let mut arguments = Self::default();
        for &word in words {
            arguments = arguments.word(word);
        }
        arguments
    }

    /// A pointer, a u64, or a u32 in the low half (all devices and hosts served are little endian).
    pub fn word(mut self, word: u64) -> Self {
        if let Some(slot) = self.words.get_mut(self.count) {
            *slot = word;
            self.count += 1;
        }
        self
    }

    pub fn float(self, value: f32) -> Self {
        self.word(u64::from(value.to_bits()))
    }
}

/// How a kernel is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub grid: u32,
    pub block: u32,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
}

impl Shape {
    pub const fn new(grid: u32, block: u32) -> Self {
        Self {
            grid,
            block,
            shared_bytes: 0,
        }
    }
}

impl Stream {
    /// Queues a kernel.
    pub fn launch(
        &self,
        function: CUfunction,
        shape: Shape,
        arguments: &Arguments,
        doing: &'static str,
    ) -> Result<(), KernelError> {
        let mut pointers = [std::ptr::null_mut::<c_void>(); 12];
        for (pointer, word) in pointers.iter_mut().zip(&arguments.words) {
            *pointer = std::ptr::from_ref(word).cast_mut().cast();
        }
        self.launch_at(function, shape, &mut pointers, doing)
    }

    /// Queues a kernel whose arguments lie at `pointers`; they are read before this returns.
    pub fn launch_at(
        &self,
        function: CUfunction,
        shape: Shape,
        pointers: &mut [*mut c_void],
        doing: &'static str,
    ) -> Result<(), KernelError> {
        // SAFETY: the contract at the head of the kernel's source states the arguments; callers are next to it.
        let status = unsafe {
            (self.gpu.driver.calls.cuLaunchKernel)(
                function,
                shape.grid,
                1,
                1,
                shape.block,
                1,
                1,
                shape.shared_bytes,
                self.handle,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        self.gpu.ok(status, doing)
    }

    /// As [`Self::launch_at`], all blocks at once or not at all.
    pub fn launch_together(
        &self,
        function: CUfunction,
        shape: Shape,
        pointers: &mut [*mut c_void],
        doing: &'static str,
    ) -> Result<(), KernelError> {
        // SAFETY: as above.
        let status = unsafe {
            (self.gpu.driver.calls.cuLaunchCooperativeKernel)(
                function,
                shape.grid,
                1,
                1,
                shape.block,
                1,
                1,
                shape.shared_bytes,
                self.handle,
                pointers.as_mut_ptr(),
            )
        };
        self.gpu.ok(status, doing)
    }

    pub fn zero(&self, memory: &Memory, offset: u64, bytes: u64) -> Result<(), KernelError> {
        let bytes = bytes.min(memory.bytes.saturating_sub(offset));
        // SAFETY: the range lies in the allocation.
        let status = unsafe {
            (self.gpu.driver.calls.cuMemsetD8Async)(
                memory.at + offset,
                0,
                bytes as usize,
                self.handle,
            )
        };
        self.gpu.ok(status, "queue zeros")
    }

    /// Copies `bytes` at `offset` of both to the host.
    pub fn down(
        &self,
        from: &Memory,
        from_offset: u64,
        to: &Pinned,
        to_offset: u64,
        bytes: u64,
    ) -> Result<(), KernelError> {
        let bytes = bytes
            .min(from.bytes.saturating_sub(from_offset))
            .min((to.bytes as u64).saturating_sub(to_offset));
        // SAFETY: both ranges lie in their allocations, whose owners outlive the queue.
        let status = unsafe {
            (self.gpu.driver.calls.cuMemcpyDtoHAsync_v2)(
                to.address(to_offset),
                from.at + from_offset,
                bytes as usize,
                self.handle,
            )
        };
        self.gpu.ok(status, "queue a copy to the host")
    }

    /// Copies the first `bytes` to the device.
    pub fn up(&self, from: &Pinned, to: &Memory, bytes: u64) -> Result<(), KernelError> {
        let bytes = bytes.min(to.bytes).min(from.bytes as u64);
        // SAFETY: as above.
        let status = unsafe {
            (self.gpu.driver.calls.cuMemcpyHtoDAsync_v2)(
                to.at,
                from.address(0),
                bytes as usize,
                self.handle,
            )
        };
        self.gpu.ok(status, "queue a copy to the device")
    }

    pub fn record(&self, event: &Event) -> Result<(), KernelError> {
        // SAFETY: both handles are open and of one context.
        let status = unsafe { (self.gpu.driver.calls.cuEventRecord)(event.handle, self.handle) };
        self.gpu.ok(status, "queue an event")
    }

    /// As [`Self::record`], into a graph that is being captured: the event itself, not merely an order.
    pub fn record_in_graph(&self, event: &Event) -> Result<(), KernelError> {
        let external = CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32;
        // SAFETY: as above.
        let status = unsafe {
            (self.gpu.driver.calls.cuEventRecordWithFlags)(event.handle, self.handle, external)
        };
        self.gpu.ok(status, "put an event into a graph")
    }

    /// Lets what is queued next wait for `event`.
    pub fn wait_for(&self, event: &Event) -> Result<(), KernelError> {
        // SAFETY: both handles are open.
        let status =
            unsafe { (self.gpu.driver.calls.cuStreamWaitEvent)(self.handle, event.handle, 0) };
        self.gpu.ok(status, "let one stream wait for another")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.gpu.is_lost() {
            // SAFETY: made by this value; the driver lets queued work end by itself.
            unsafe { (self.gpu.driver.calls.cuStreamDestroy_v2)(self.handle) };
        }
    }
}

/// A point in a stream, with the device's time.
pub(super) struct Event {
    gpu: Arc<Gpu>,
    handle: CUevent,
}

// SAFETY: an event may be recorded and asked from any thread; see `Gpu`.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// Whether the work before it has ended.
    pub fn passed(&self) -> Result<bool, KernelError> {
        // SAFETY: the handle is open.
        match unsafe { (self.gpu.driver.calls.cuEventQuery)(self.handle) } {
            NOT_READY => Ok(false),
            status => self.gpu.ok(status, "work").map(|()| true),
        }
    }

    /// Waits for it, at most for `limit`.
    pub fn wait(&self, limit: Duration) -> Result<(), KernelError> {
        let start_ns = now_ns();
        while !self.passed()? {
            if u128::from(now_ns() - start_ns) > limit.as_nanos() {
                self.gpu.give_up();
                return Err(KernelError::Hung {
                    device: self.gpu.id.clone(),
                    waited_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                });
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Device time since `earlier` in nanoseconds, to about half a microsecond; both have passed.
    pub fn since_ns(&self, earlier: &Self) -> Result<u64, KernelError> {
        let mut ms = 0_f32;
        // SAFETY: one number is written to a local.
        let status = unsafe {
            (self.gpu.driver.calls.cuEventElapsedTime)(&raw mut ms, earlier.handle, self.handle)
        };
        self.gpu.ok(status, "read the time between two events")?;
        Ok((f64::from(ms.max(0.0)) * 1e6).round() as u64)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if !self.gpu.is_lost() {
            // SAFETY: made by this value.
            unsafe { (self.gpu.driver.calls.cuEventDestroy_v2)(self.handle) };
        }
    }
}
