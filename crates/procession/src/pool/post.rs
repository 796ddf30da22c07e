//! The workers that live just now, as all threads of the owner see them.

use std::sync::Arc;

use crate::pool::core::{Core, lock};
use crate::pool::gate::Stand;
use crate::pool::transport::{View, WorkerBoot};
use crate::process::Child;

/// One worker.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) child: Child,
    pub(super) name: String,
    pub(super) boot: WorkerBoot,
}

impl Post {
    /// Ends the worker at once. Does nothing if it has ended.
    pub(super) fn kill(&self) {
        if let Err(error) = self.child.kill() {
            tracing::warn!(pid = self.child.pid(), %error, "worker could not be killed");
        }
    }
}

impl Core {
    /// Replaces the list of the workers that live.
    pub(super) fn publish_posts(&self, posts: Vec<Arc<Post>>) {
        *lock(&self.posts) = posts;
    }

    pub(super) fn posts(&self) -> Vec<Arc<Post>> {
        lock(&self.posts).clone()
    }

    /// The workers that live, and what each is at.
    pub(super) fn views(&self) -> impl Iterator<Item = (Arc<Post>, View)> {
        self.posts().into_iter().map(|post| {
            let view = self.transport.look(&post.boot);
            (post, view)
        })
    }

    /// Whether a worker runs a task of this batch.
    pub(super) fn is_running(&self, batch: u32) -> bool {
        self.views().any(|(_, view)| matches!(view.stand, Stand::Running(id) if id.batch == batch))
    }
}
