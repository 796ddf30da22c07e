//! Ending tasks before they are done: by request, after a failure, because they take too long.
//!
//! Workers are told to begin no more of the batch; see [`gate`](super::gate) for the workers that have
//! begun. The outcome is decided here, in the slots of the batch, before a worker is killed, and under a
//! lock that the pool's thread takes before it judges a death: it finds the task with its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::batch::Batch;
use crate::pool::core::{Core, lock};
use crate::pool::error::{PoolError, TaskLost, TimedOut};
use crate::pool::frame::TaskId;
use crate::pool::gate::Stand;
use crate::pool::post::Post;
use crate::pool::transport::View;
use crate::primitive::Ordering;
use crate::sys::clock;

/// Timeouts are looked after no more often than this.
const SHORTEST_WATCH: Duration = Duration::from_millis(1);

impl Core {
    /// Cancels the tasks of a batch that no worker has begun, and with `running` the others too. Returns
    /// how many.
    pub(super) fn cancel(&self, batch: &Batch, running: bool) -> Result<usize, PoolError> {
        self.drain();
        if !batch.close() {
            return Ok(0);
        }
        self.transport.revoke(batch.id)?;
        let mut arrested = Vec::new();
        let (count, progress) = {
            let _sentence = lock(&self.sentences);
            let begun = self.begun(batch.id, running, &mut arrested);
            // What a worker has left behind is to be read now, so that it counts as done.
            self.drain();
            batch.revoke(&begun, &TaskLost::Cancelled)
        };
        self.tally.cancelled.fetch_add(count as u64, Ordering::Relaxed);
        self.follow_up(batch, progress);
        self.wake_waiters();
        arrested.iter().for_each(|post| post.kill());
        Ok(count)
    }

    /// The tasks of a batch that workers have begun and whose results may come; arrests the workers that
    /// can be, if they are to be.
    fn begun(&self, batch: u32, arrest: bool, arrested: &mut Vec<Arc<Post>>) -> Vec<u32> {
        let mut begun = Vec::new();
        for (post, view) in self.views() {
            match view.stand {
                Stand::Running(id) if id.batch == batch => {
                    if arrest && self.transport.arrest(&post.boot, id) {
                        arrested.push(post);
                    } else {
                        begun.push(id.index);
                    }
                }
                Stand::Finished(id) if id.batch == batch && view.claim == Some(id) => {
                    begun.push(id.index);
                }
                _ => {}
            }
        }
        begun
    }

    /// A task of the batch has failed, and the others are not wanted any more.
    pub(super) fn give_up_batch(&self, batch: &Batch) {
        if let Err(error) = self.transport.revoke(batch.id) {
            // Workers run them in vain.
            tracing::warn!(%error, "tasks that are not wanted any more cannot be called back");
        }
        let (count, progress) = batch.revoke(&[], &TaskLost::Cancelled);
        self.tally.cancelled.fetch_add(count as u64, Ordering::Relaxed);
        self.follow_up(batch, progress);
    }

    /// Ends the tasks that have taken too long. Returns when to look again; `None` if no task is to be
    /// watched.
    pub(super) fn end_overdue(&self) -> Option<Instant> {
        let shortest = self.shortest_timeout()?;
        let mut next = clock::span(shortest);
        let now = clock::now();
        for (post, view) in self.views() {
            let Some((id, batch, timeout)) = self.watched(&view) else { continue };
            let due = view.since.saturating_add(clock::span(timeout));
            if due <= now {
                self.end_task(&post, id, &batch, timeout);
            } else {
                next = next.min(due - now);
            }
        }
        let pause = Duration::from_nanos(next).max(SHORTEST_WATCH);
        Instant::now().checked_add(pause)
    }

    /// The task that a worker runs, if that has a timeout.
    fn watched(&self, view: &View) -> Option<(TaskId, Arc<Batch>, Duration)> {
        let Stand::Running(id) = view.stand else { return None };
        let batch = self.batch(id)?;
        let timeout = batch.timeout?;
        Some((id, batch, timeout))
    }

    fn end_task(&self, post: &Post, id: TaskId, batch: &Batch, timeout: Duration) {
        let progress = {
            let _sentence = lock(&self.sentences);
            if !self.transport.arrest(&post.boot, id) {
                return;
            }
            let (pid, name) = (post.child.pid(), post.name.clone());
            let lost = |task| TaskLost::TimedOut(TimedOut { pid, name, timeout, task });
            batch.expire(id.index, lost)
        };
        self.tally.timed_out.fetch_add(1, Ordering::Relaxed);
        self.follow_up(batch, progress);
        self.wake_waiters();
        post.kill();
    }
}
