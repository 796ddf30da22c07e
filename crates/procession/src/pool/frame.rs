//! What stands before the bytes of a task and of a result.
//!
//! | task   | bytes | meaning                                                              |
//! |--------|-------|----------------------------------------------------------------------|
//! | id     | 0–7   | batch in the upper half, index in the lower; 0 is no task: look around |
//! | job    | 8–15  | handle of the function's bytes                                       |
//! | kind   | 16–23 | the lower half for the runner, [`Care`] in the upper                 |
//! | payload | 24–  | for the runner                                                       |
//!
//! | result | bytes | meaning                                                              |
//! |--------|-------|----------------------------------------------------------------------|
//! | id     | 0–7   | as in the task; 0 says something about the worker                    |
//! | status | 8–15  | a [`Status`] in the lower half, the seat of the worker in the upper   |
//! | payload | 16–  | what the runner wrote; UTF-8 text for [`Status::Refused`] and [`Status::StartFailed`] |
//!
//! All numbers are little-endian. The id comes first in a task because the task queue copies the first
//! eight bytes of a record into the claim of the worker that takes it.

/// Bytes before the payload of a task.
pub(super) const TASK_HEADER: usize = 24;
/// Bytes before the payload of a result.
pub(super) const RESULT_HEADER: usize = 16;

/// Names one task: the batch it belongs to and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskId {
    /// Never 0, and never with the top bit set; see [`gate`](super::gate).
    pub(super) batch: u32,
    pub(super) index: u32,
}

impl TaskId {
    /// `None` for the number that is no task.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        let batch = (bits >> 32) as u32;
        (batch != 0).then_some(Self { batch, index: bits as u32 })
    }

    pub(super) fn bits(self) -> u64 {
        u64::from(self.batch) << 32 | u64::from(self.index)
    }
}

/// What a worker has to see to besides running the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Care {
    /// Somebody watches how long it takes: the moment it begins is to be exact.
    pub(super) timed: bool,
    /// The owner is to be woken at once if it fails.
    pub(super) urgent: bool,
}

impl Care {
    fn bits(self) -> u32 {
        u32::from(self.timed) | u32::from(self.urgent) << 1
    }

    fn from_bits(bits: u32) -> Self {
        Self { timed: bits & 1 != 0, urgent: bits & 2 != 0 }
    }
}

/// The header of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskHeader {
    /// `None` asks the worker to look whether it is still wanted.
    pub(super) id: Option<TaskId>,
    pub(super) job: u64,
    pub(super) kind: u32,
    pub(super) care: Care,
}

impl TaskHeader {
    /// The header that is no task.
    pub(super) const LOOK_AROUND: Self =
        Self { id: None, job: 0, kind: 0, care: Care { timed: false, urgent: false } };

    pub(super) fn to_bytes(self) -> [u8; TASK_HEADER] {
        let mut bytes = [0; TASK_HEADER];
        bytes[..8].copy_from_slice(&self.id.map_or(0, TaskId::bits).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.job.to_le_bytes());
        let kind = u64::from(self.care.bits()) << 32 | u64::from(self.kind);
        bytes[16..].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    /// Splits a record into header and payload; `None` if it is too short to be a task.
    pub(super) fn split(record: &[u8]) -> Option<(Self, &[u8])> {
        let (id, rest) = take_u64(record)?;
        let (job, rest) = take_u64(rest)?;
        let (kind, payload) = take_u64(rest)?;
        let care = Care::from_bits((kind >> 32) as u32);
        Some((Self { id: TaskId::from_bits(id), job, kind: kind as u32, care }, payload))
    }
}

/// What became of a task in the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Status {
    /// The runner said so.
    Done = 0,
    /// The runner said so.
    Failed = 1,
    /// The worker could not run the task or not send its result.
    Refused = 2,
    /// No task: the worker will exit, as it cannot start.
    StartFailed = 3,
    /// The task was cancelled before the worker began it.
    Skipped = 4,
}

impl Status {
    fn from_bits(bits: u32) -> Option<Self> {
        let all = [Self::Done, Self::Failed, Self::Refused, Self::StartFailed, Self::Skipped];
        all.get(bits as usize).copied()
    }
}

/// The header of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResultHeader {
    /// `None` if it is not about a task.
    pub(super) id: Option<TaskId>,
    pub(super) status: Status,
    pub(super) seat: u32,
}

impl ResultHeader {
    pub(super) fn to_bytes(self) -> [u8; RESULT_HEADER] {
        let mut bytes = [0; RESULT_HEADER];
        let status = u64::from(self.seat) << 32 | u64::from(self.status as u32);
        bytes[..8].copy_from_slice(&self.id.map_or(0, TaskId::bits).to_le_bytes());
        bytes[8..].copy_from_slice(&status.to_le_bytes());
        bytes
    }

    /// Splits a record into header and payload; `None` if it is no result.
    pub(super) fn split(record: &[u8]) -> Option<(Self, &[u8])> {
        let (id, rest) = take_u64(record)?;
        let (status, payload) = take_u64(rest)?;
        let header = Self {
            id: TaskId::from_bits(id),
            status: Status::from_bits(status as u32)?,
            seat: (status >> 32) as u32,
        };
        Some((header, payload))
    }
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_header_survives_the_trip() {
        let id = TaskId { batch: 7, index: u32::MAX };
        for (timed, urgent) in [(false, false), (true, false), (false, true), (true, true)] {
            let care = Care { timed, urgent };
            let header = TaskHeader { id: Some(id), job: u64::MAX - 1, kind: u32::MAX, care };
            let mut record = header.to_bytes().to_vec();
            record.extend_from_slice(b"payload");
            assert_eq!(TaskHeader::split(&record), Some((header, &b"payload"[..])));
        }
    }

    #[test]
    fn first_eight_bytes_of_a_task_are_its_id() {
        let id = TaskId { batch: 1, index: 0 };
        let record = TaskHeader { id: Some(id), job: 2, kind: 3, care: Care::default() }.to_bytes();
        assert_eq!(take_u64(&record).unwrap().0, id.bits(), "the claim would be wrong");
        assert_ne!(id.bits(), 0, "a claim of 0 means none");
    }

    #[test]
    fn look_around_is_no_task() {
        let record = TaskHeader::LOOK_AROUND.to_bytes();
        assert_eq!(TaskHeader::split(&record).unwrap().0.id, None);
    }

    #[test]
    fn result_header_survives_the_trip() {
        let id = Some(TaskId { batch: u32::MAX, index: 5 });
        for bits in 0..5 {
            let status = Status::from_bits(bits).unwrap();
            let header = ResultHeader { id, status, seat: 63 };
            let record = header.to_bytes();
            assert_eq!(ResultHeader::split(&record), Some((header, &[][..])));
        }
    }

    #[test]
    fn short_or_senseless_records_are_refused() {
        assert_eq!(TaskHeader::split(&[0; TASK_HEADER - 1]), None);
        assert_eq!(ResultHeader::split(&[0; RESULT_HEADER - 1]), None);
        assert_eq!(ResultHeader::split(&[9; RESULT_HEADER]), None);
    }
}
