//! Decides how an open device is submitted to, waited for and read, and how its faults become values.
//!
//! Every wait is bounded. wgpu reports most faults through callbacks and a few by panicking (a lost device
//! under `poll`); both end here, in [`KernelError`].

use super::Options;
use super::pipelines::Variant;
use crate::error::KernelError;
use crate::timer::now_ns;
use ::wgpu::{Adapter, Buffer, BufferUsages, CommandBuffer, Features, MapMode, SubmissionIndex};
use hallmark_profiles::units::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for work outside the steady state: a first dispatch may compile for seconds.
pub(super) const SETUP_LIMIT: Duration = Duration::from_secs(120);

/// What the driver reported first; later reports are usually its echo.
#[derive(Clone, Debug)]
enum Fault {
    Lost(String),
    OutOfMemory(String),
    Other(String),
}

/// An open device and its queue.
pub(super) struct Gpu {
    pub id: String,
    pub device: ::wgpu::Device,
    pub queue: ::wgpu::Queue,
    pub limits: ::wgpu::Limits,
    pub variant: Variant,
    /// Nominal length of a timestamp tick; `None` where steps are timed by the host.
    pub tick_ns: Option<f64>,
    fault: Arc<Mutex<Option<Fault>>>,
    allocated: Arc<AtomicU64>,
}

impl Gpu {
    pub fn open(adapter: &Adapter, id: &str, options: Options) -> Result<Self, KernelError> {
        let wanted = Features::TIMESTAMP_QUERY | Features::SHADER_F16;
        let features = adapter.features() & wanted;
        let request = adapter.request_device(&::wgpu::DeviceDescriptor {
            label: Some("hallmark"),
            required_features: features,
            required_limits: adapter.limits(),
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request).map_err(|e| KernelError::Device {
            device: id.to_owned(),
            what: format!("cannot be opened: {e}"),
        })?;
        let fault: Arc<Mutex<Option<Fault>>> = Arc::default();
        let seen = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error: ::wgpu::Error| {
            let text = error.to_string();
            note(
                &seen,
                match error {
                    ::wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory(text),
                    _ => Fault::Other(text),
                },
            );
        }));
        let seen = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, text| {
            // Dropping the device also counts as losing it; nobody is left to be told then.
            note(&seen, Fault::Lost(format!("{reason:?}: {text}")));
        });
        let timed = features.contains(Features::TIMESTAMP_QUERY) && !options.host_clock;
        Ok(Self {
            id: id.to_owned(),
            limits: device.limits(),
            variant: options
                .variant
                .unwrap_or(Variant::of(adapter.get_info().device_type)),
            tick_ns: timed.then(|| f64::from(queue.get_timestamp_period())),
            device,
            queue,
            fault,
            allocated: Arc::default(),
        })
    }

    /// Bytes in buffers made here and not yet dropped.
    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Runs `make`, which allocates `need`, and turns exhausted memory into [`KernelError::Memory`].
    pub fn allocate<T>(
        self: &Arc<Self>,
        need: Bytes,
        free: Bytes,
        make: impl FnOnce() -> T,
    ) -> Result<(T, Holding), KernelError> {
        let scope = self
            .device
            .push_error_scope(::wgpu::ErrorFilter::OutOfMemory);
        let made = self.guard(make)?;
        if pollster::block_on(scope.pop()).is_some() {
            return Err(KernelError::Memory {
                device: self.id.clone(),
                free,
                need,
            });
        }
        self.check()?;
        self.allocated.fetch_add(need.0, Ordering::Relaxed);
        let holding = Holding {
            bytes: need.0,
            allocated: Arc::clone(&self.allocated),
        };
        Ok((made, holding))
    }

    pub fn buffer(&self, label: &str, bytes: u64, usage: BufferUsages) -> Buffer {
        self.device.create_buffer(&::wgpu::BufferDescriptor {
            label: Some(label),
            // Whole groups of four floats, and never empty.
            size: bytes.next_multiple_of(16).max(16),
            usage,
            mapped_at_creation: false,
        })
    }

    /// The first fault reported, if any.
    pub fn check(&self) -> Result<(), KernelError> {
        let device = self.id.clone();
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match fault.clone() {
            None => Ok(()),
            Some(Fault::Lost(why)) => Err(KernelError::Lost { device, why }),
            Some(Fault::OutOfMemory(text)) => Err(KernelError::Device {
                device,
                what: format!("ran out of memory: {text}"),
            }),
            Some(Fault::Other(what)) => Err(KernelError::Device { device, what }),
        }
    }

    pub fn submit(&self, commands: Option<CommandBuffer>) -> Result<SubmissionIndex, KernelError> {
        let index = self.guard(|| self.queue.submit(commands))?;
        self.check()?;
        Ok(index)
    }

    /// Whether the submission ended within `limit`.
    pub fn wait(&self, index: &SubmissionIndex, limit: Duration) -> Result<bool, KernelError> {
        let poll = ::wgpu::PollType::Wait {
            submission_index: Some(index.clone()),
            timeout: Some(limit),
        };
        let ended = match self.guard(|| self.device.poll(poll))? {
            Ok(_) => true,
            Err(::wgpu::PollError::Timeout) => false,
            Err(error) => {
                return Err(KernelError::Device {
                    device: self.id.clone(),
                    what: error.to_string(),
                });
            }
        };
        self.check()?;
        Ok(ended)
    }

    /// As [`Self::wait`], with an error when the limit passes.
    pub fn finish(&self, index: &SubmissionIndex, limit: Duration) -> Result<(), KernelError> {
        if self.wait(index, limit)? {
            Ok(())
        } else {
            Err(self.hung(limit))
        }
    }

    /// Maps all of `buffer`; the work that fills or drains it has been submitted.
    pub fn map(&self, buffer: &Buffer, mode: MapMode, limit: Duration) -> Result<(), KernelError> {
        const PENDING: u8 = 0;
        const MAPPED: u8 = 1;
        const FAILED: u8 = 2;
        let state = Arc::new(AtomicU8::new(PENDING));
        let told = Arc::clone(&state);
        self.guard(|| {
            buffer.map_async(mode, .., move |result| {
                let value = if result.is_ok() { MAPPED } else { FAILED };
                told.store(value, Ordering::Release);
            });
        })?;
        let start_ns = now_ns();
        loop {
            let polled = self.guard(|| self.device.poll(::wgpu::PollType::Poll))?;
            self.check()?;
            match state.load(Ordering::Acquire) {
                MAPPED => return Ok(()),
                FAILED => {
                    return Err(KernelError::Device {
                        device: self.id.clone(),
                        what: format!("a buffer could not be mapped ({polled:?})"),
                    });
                }
                _ if u128::from(now_ns() - start_ns) > limit.as_nanos() => {
                    return Err(self.hung(limit));
                }
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    /// Maps `buffer`, hands its bytes to `use_bytes` and unmaps it.
    pub fn read<T>(
        &self,
        buffer: &Buffer,
        limit: Duration,
        use_bytes: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, KernelError> {
        self.map(buffer, MapMode::Read, limit)?;
        let used = buffer
            .get_mapped_range(..)
            .map(|view| use_bytes(&view))
            .map_err(|e| self.failed(&e));
        buffer.unmap();
        used
    }

    /// A driver's complaint as this device's fault.
    pub fn failed(&self, error: &dyn std::error::Error) -> KernelError {
        KernelError::Device {
            device: self.id.clone(),
            what: error.to_string(),
        }
    }

    fn hung(&self, limit: Duration) -> KernelError {
        KernelError::Hung {
            device: self.id.clone(),
            waited_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// wgpu panics where a call without an error value meets a lost device.
    fn guard<T>(&self, call: impl FnOnce() -> T) -> Result<T, KernelError> {
        catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
            let why = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_else(|| "the driver's layer panicked".into());
            note(&self.fault, Fault::Lost(why.clone()));
            KernelError::Lost {
                device: self.id.clone(),
                why,
            }
        })
    }
}

/// Memory that counts as taken until this is dropped.
pub(super) struct Holding {
    bytes: u64,
    allocated: Arc<AtomicU64>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.allocated.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn note(slot: &Mutex<Option<Fault>>, fault: Fault) {
    slot.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert(fault);
}
