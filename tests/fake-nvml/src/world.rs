//! The one initialised world: script, clock and event sets; every call passes through it.
//!
//! Decides: whether a call is missing, delayed, failed or answered, in this order. Refuses: calls
//! before `nvmlInit_v2`. A delay sleeps outside every lock, so one device's hang holds up its own
//! caller alone, as the real library's does.

use crate::abi::{Answer, DeviceHandle, Ret, SUCCESS, Status};
use crate::clock::Clock;
use crate::events::EventSet;
use crate::script::{Device, Script};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub struct World {
    pub script: Script,
    clock: Clock,
    event_sets: Mutex<Vec<Option<EventSet>>>,
}

/// Initialisations are counted, as in the real library: the last shutdown ends the world.
static STATE: Mutex<(usize, Option<Arc<World>>)> = Mutex::new((0, None));

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn now_s(&self) -> f64 {
        self.clock.now_s()
    }

    pub fn event_sets(&self) -> MutexGuard<'_, Vec<Option<EventSet>>> {
        locked(&self.event_sets)
    }

    /// The device behind a handle and its place in the script.
    pub fn device(&self, handle: DeviceHandle) -> Result<(usize, &Device), Status> {
        let place = handle.checked_sub(1).ok_or(Status::InvalidArgument)?;
        let device = self
            .script
            .devices
            .get(place)
            .ok_or(Status::InvalidArgument)?;
        Ok((place, device))
    }

    /// The scripted error, if any, for `function` on `device`; sleeps through scripted delays first.
    pub fn fault(&self, function: &str, device: Option<usize>) -> Answer {
        if self
            .script
            .missing
            .iter()
            .any(|missing| missing == function)
        {
            return Err(Status::FunctionNotFound);
        }
        let faults = &self.script.faults;
        let now_s = self.now_s();
        for fault in faults
            .iter()
            .filter(|fault| fault.meets(function, device, now_s))
        {
            if let Ok(wait) = Duration::try_from_secs_f64(fault.hang_s) {
                std::thread::sleep(wait);
            }
        }
        // Asked again: a call that hung until the device was lost reports the loss.
        let now_s = self.now_s();
        let met = faults
            .iter()
            .filter(|fault| fault.meets(function, device, now_s));
        met.filter_map(|fault| fault.code)
            .next()
            .map_or(Ok(()), Err)
    }
}

/// Starts the world, or counts one more user of it.
pub fn start() -> Ret {
    let mut state = locked(&STATE);
    if state.1.is_none() {
        let script = std::env::var_os("FAKE_NVML_SCRIPT")
            .map(PathBuf::from)
            .ok_or_else(|| "FAKE_NVML_SCRIPT names no script".to_owned())
            .and_then(|path| Script::read(&path));
        match script {
            Ok(script) => {
                let clock = Clock::start(script.clock_file.clone());
                let event_sets = Mutex::new(Vec::new());
                state.1 = Some(Arc::new(World {
                    script,
                    clock,
                    event_sets,
                }));
            }
            Err(why) => {
                eprintln!("fake nvml: {why}");
                return Status::Unknown.code();
            }
        }
        let fault = state
            .1
            .as_ref()
            .map(|world| world.fault("nvmlInit_v2", None));
        if let Some(Err(status)) = fault {
            state.1 = None;
            return status.code();
        }
    }
    state.0 += 1;
    SUCCESS
}

/// Ends one use of the world, and the world with the last.
pub fn stop() -> Ret {
    let mut state = locked(&STATE);
    if state.0 == 0 {
        return Status::Uninitialized.code();
    }
    state.0 -= 1;
    if state.0 == 0 {
        state.1 = None;
    }
    SUCCESS
}

/// Answers a call that concerns no single device.
pub fn answer(function: &str, then: impl FnOnce(&World) -> Answer) -> Ret {
    let world = locked(&STATE).1.clone();
    let outcome = world.ok_or(Status::Uninitialized).and_then(|world| {
        world.fault(function, None)?;
        then(&world)
    });
    outcome.map_or_else(Status::code, |()| SUCCESS)
}

/// Answers a call about one device; `then` gets the device and the time in seconds.
pub fn answer_device(
    function: &str,
    handle: DeviceHandle,
    then: impl FnOnce(&World, usize, &Device, f64) -> Answer,
) -> Ret {
    let world = locked(&STATE).1.clone();
    let outcome = world.ok_or(Status::Uninitialized).and_then(|world| {
        let (place, device) = world.device(handle)?;
        world.fault(function, Some(place))?;
        then(&world, place, device, world.now_s())
    });
    outcome.map_or_else(Status::code, |()| SUCCESS)
}
