//! What the handles to both kinds of containers have in common, and what their guards use.

use std::collections::HashSet;

use crate::shm::{Arena, Handle};

/// Writes what a handle to a container has besides its constructor: how it travels, and how it is
/// locked. The handle has a `Shared` in the field `state`, with a `RobustLock` in the field `lock`;
/// the guard has a constructor `new` of the handle, the arena and the lock that was taken.
macro_rules! shared_container {
    ($handle:ident, $guard:ident, $what:literal) => {
        $crate::shm::shared_handle!(
            $handle, $what, [state], |state| Ok(Self { state }); open, note, id, is_same, serde
        );

        impl $handle {
            #[doc = concat!("Blocks until this process alone uses the ", $what, ".")]
            /// Signals do not end the wait.
            ///
            /// Others wait as long as the guard lives; a thread that has one must not ask for another.
            pub fn lock(&self) -> $guard<'_> {
                let arena = $crate::collection::handle::arena();
                $guard::new(self, arena, self.state.lock.lock(arena))
            }

            #[doc = concat!("Locks the ", $what, " if nobody has it locked.")]
            pub fn try_lock(&self) -> Option<$guard<'_>> {
                let arena = $crate::collection::handle::arena();
                self.state.lock.lock_now(arena).map(|taken| $guard::new(self, arena, taken))
            }

            #[doc = concat!("Blocks until the ", $what, " is locked, until `deadline`;")]
            /// `None` means for ever.
            ///
            /// # Errors
            ///
            /// [`TimedOut`](crate::WaitError::TimedOut) at the deadline,
            /// [`Interrupted`](crate::WaitError::Interrupted) when a signal handler has run while it
            /// waited.
            pub fn lock_until(
                &self,
                deadline: Option<std::time::Instant>,
            ) -> Result<$guard<'_>, $crate::error::WaitError> {
                let arena = $crate::collection::handle::arena();
                let taken = self.state.lock.lock_until(arena, deadline)?;
                Ok($guard::new(self, arena, taken))
            }
        }
    };
}

pub(super) use shared_container;

/// The arena that every shared object of this process lives in.
pub(super) fn arena() -> &'static Arena {
    // Whoever has a shared object has the arena, and nobody takes it away.
    Arena::current().expect("the arena of a shared object is there")
}

/// Frees the blocks of a container but for these.
pub(super) fn free_others(arena: &Arena, container: Handle, kept: &HashSet<u64>) {
    for block in arena.children_of(container) {
        if !kept.contains(&block.raw()) {
            arena.free(block);
        }
    }
}
