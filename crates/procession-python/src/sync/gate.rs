//! What stands behind a lock or a semaphore of Python in the engine.

use std::time::Instant;

use procession::WaitError;
use procession::shm::ArenaError;
use procession::sync::{Holder, Lock, LockOutcome, RLock, Semaphore};
use pyo3::exceptions::PyValueError;

use crate::error::EngineResult;

/// The original's numbers for the kinds that it has, and one for what it has a semaphore for.
pub(super) const RECURSIVE_MUTEX: i32 = 0;
pub(super) const SEMAPHORE: i32 = 1;
pub(super) const MUTEX: i32 = 2;

/// What the engine has for each kind.
#[derive(Debug, Clone)]
pub(crate) enum Gate {
    Lock(Lock),
    RLock(RLock),
    Semaphore(Semaphore),
}

impl Gate {
    pub(super) fn new(kind: i32, value: u32, maximum: u32) -> EngineResult<Self> {
        Ok(match kind {
            RECURSIVE_MUTEX => Self::RLock(RLock::new()?),
            SEMAPHORE => Self::Semaphore(Semaphore::bounded(value, maximum)?),
            MUTEX => Self::Lock(Lock::new()?),
            _ => Err(PyValueError::new_err("unrecognized kind"))?,
        })
    }

    pub(super) fn open(kind: i32, raw: u64) -> EngineResult<Self> {
        Ok(match kind {
            RECURSIVE_MUTEX => Self::RLock(RLock::open(raw)?),
            SEMAPHORE => Self::Semaphore(Semaphore::open(raw)?),
            MUTEX => Self::Lock(Lock::open(raw)?),
            _ => Err(PyValueError::new_err("unrecognized kind"))?,
        })
    }

    /// The number that stands for it in what is being packed.
    pub(super) fn note(&self) -> Result<u64, ArenaError> {
        match self {
            Self::Lock(lock) => lock.note(),
            Self::RLock(lock) => lock.note(),
            Self::Semaphore(semaphore) => semaphore.note(),
        }
    }

    pub(super) fn kind(&self) -> i32 {
        match self {
            Self::Lock(_) => MUTEX,
            Self::RLock(_) => RECURSIVE_MUTEX,
            Self::Semaphore(_) => SEMAPHORE,
        }
    }

    pub(super) fn maximum(&self) -> u32 {
        match self {
            Self::Lock(_) | Self::RLock(_) => 1,
            Self::Semaphore(semaphore) => semaphore.maximum(),
        }
    }

    #[inline]
    pub(super) fn try_acquire(&self) -> Option<LockOutcome> {
        match self {
            Self::Lock(lock) => lock.try_acquire(),
            Self::RLock(lock) => lock.try_acquire(),
            Self::Semaphore(semaphore) => semaphore.try_acquire().then_some(LockOutcome::Acquired),
        }
    }

    pub(super) fn acquire(&self, deadline: Option<Instant>) -> Result<LockOutcome, WaitError> {
        match self {
            Self::Lock(lock) => lock.acquire(deadline),
            Self::RLock(lock) => lock.acquire(deadline),
            Self::Semaphore(semaphore) => {
                semaphore.acquire(deadline).map(|()| LockOutcome::Acquired)
            }
        }
    }

    #[inline]
    pub(super) fn release(&self) -> EngineResult<()> {
        match self {
            Self::Lock(lock) => lock.release()?,
            Self::RLock(lock) => lock.release()?,
            Self::Semaphore(semaphore) => semaphore.release()?,
        }
        Ok(())
    }

    pub(super) fn value(&self) -> u32 {
        match self {
            Self::Lock(lock) => u32::from(!lock.is_held()),
            Self::RLock(lock) => u32::from(!lock.is_held()),
            Self::Semaphore(semaphore) => semaphore.value(),
        }
    }

    /// Who holds it; a semaphore is held by nobody.
    pub(super) fn holder(&self) -> Holder {
        match self {
            Self::Lock(lock) => lock.holder(),
            Self::RLock(lock) => lock.holder(),
            Self::Semaphore(_) => Holder::Nobody,
        }
    }

    /// How often this process has taken it.
    pub(super) fn count(&self) -> u32 {
        match (self, self.holder()) {
            (_, Holder::Nobody | Holder::OtherProcess) => 0,
            (Self::RLock(lock), _) => lock.depth(),
            _ => 1,
        }
    }
}
