//! The one way by which anything reaches the run: workers, sensors, signals, the journal.
//!
//! It holds so much and no more. What a device did is waited for, since a row that is lost would be work
//! that was never done; rows of a sensor are refused when it is full, and whoever offered them has to say so.

use crate::run::Input;
use std::sync::mpsc::{Receiver, SendError, SyncSender, TrySendError, sync_channel};

/// Inputs that wait at most; with a batch of each of 64 devices five times a second nearly a minute.
pub const INPUTS_MAX: usize = 16_384;

/// The sending end.
#[derive(Clone)]
pub struct Inlet(SyncSender<Input>);

/// A new inbox.
pub fn open() -> (Inlet, Receiver<Input>) {
    let (inlet, inbox) = sync_channel(INPUTS_MAX);
    (Inlet(inlet), inbox)
}

impl Inlet {
    /// Hands an input over, after waiting for room.
    ///
    /// # Errors
    /// The run no longer listens.
    pub fn send(&self, input: Input) -> Result<(), Box<SendError<Input>>> {
        self.0.send(input).map_err(Box::new)
    }

    /// Hands an input over if there is room.
    ///
    /// # Errors
    /// The input again, where there is none. A run that no longer listens needs none.
    pub fn try_send(&self, input: Input) -> Result<(), Input> {
        match self.0.try_send(input) {
            Err(TrySendError::Full(input)) => Err(input),
            _ => Ok(()),
        }
    }

    /// Hands an input over if there is room; whether there was. A run that no longer listens needs none.
    pub fn offer(&self, input: Input) -> bool {
        !matches!(self.0.try_send(input), Err(TrySendError::Full(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_does_not_look_holds_no_more_than_its_inbox() {
        let (inlet, inbox) = open();
        let taken = (0..2 * INPUTS_MAX)
            .filter(|_| inlet.offer(Input::Interrupt))
            .count();
        assert_eq!(taken, INPUTS_MAX);
        assert!(inbox.recv().is_ok());
        assert!(inlet.offer(Input::Cut), "there is room again");
        drop(inbox);
        assert!(inlet.send(Input::Cut).is_err());
    }
}
