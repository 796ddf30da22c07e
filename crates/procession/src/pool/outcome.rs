//! What becomes of a task, in bytes.

use std::fmt;
use std::ops::Deref;

use crate::channel::Message;
use crate::pool::error::TaskLost;
use crate::pool::frame::{RESULT_HEADER, Status};

/// What became of one task.
#[derive(Debug)]
pub enum Outcome {
    /// The runner says that it is done; what it wrote.
    Done(Payload),
    /// The runner says that it failed; what it wrote.
    Failed(Payload),
    /// The runner had no chance to say anything.
    Lost(TaskLost),
}

/// What a runner wrote. Shared objects in it can be deserialized while it lives.
pub struct Payload(Message);

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.as_ref()[RESULT_HEADER..]
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

impl Outcome {
    /// Whether the runner says that the task is done.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// Reads a result. The record was checked to be one.
    pub(super) fn new(status: Status, record: Message) -> Self {
        match status {
            Status::Done => Self::Done(Payload(record)),
            Status::Failed => Self::Failed(Payload(record)),
            Status::Skipped => Self::Lost(TaskLost::Cancelled),
            Status::Refused | Status::StartFailed => {
                let text = String::from_utf8_lossy(&record.as_ref()[RESULT_HEADER..]).into_owned();
                Self::Lost(TaskLost::Refused(text))
            }
        }
    }
}
