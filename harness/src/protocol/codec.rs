//! How messages lie on a gRPC stream: MessagePack with field names, as on the workers' pipes and in the journal.
//!
//! It refuses what is longer than [`MESSAGE_MAX`] before it is read, and what cannot be read at all, by name.

use bytes::{Buf, BufMut};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Largest message, B; a batch of steps is some hundred kilobytes, the plan of a node with many devices a few megabytes.
pub const MESSAGE_MAX: usize = 16 << 20;

/// What a stream holds before its first message, B: a controller has four streams for each of thousands of agents.
const BUFFER: usize = 1 << 10;
/// What is gathered before it goes out, B.
const GATHERED: usize = 32 << 10;

/// Messages of type `T` go out and of type `U` come in.
pub struct Packed<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Packed<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// One direction.
pub struct Packing<T>(PhantomData<T>);

impl<T: Serialize + Send + 'static, U: DeserializeOwned + Send + 'static> Codec for Packed<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Packing<T>;
    type Decoder = Packing<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Packing(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Packing(PhantomData)
    }
}

impl<T: Serialize> Encoder for Packing<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        rmp_serde::encode::write_named(&mut to.writer(), &item)
            .map_err(|e| Status::internal(format!("a message cannot be written: {e}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, GATHERED)
    }
}

impl<T: DeserializeOwned> Decoder for Packing<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let message = rmp_serde::from_read(from.reader());
        let wrong = |e| Status::invalid_argument(format!("a message cannot be read: {e}"));
        message.map(Some).map_err(wrong)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, GATHERED)
    }
}
