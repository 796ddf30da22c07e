//! What the next holder of a dict does after a death.

use std::collections::HashSet;

use crate::collection::dict::DictGuard;
use crate::collection::handle::free_others;
use crate::collection::item;
use crate::collection::table::Table;
use crate::primitive::Ordering;
use crate::shm::{ArenaError, Handle};

/// After a death.
impl DictGuard<'_> {
    /// Makes good what the holder before, which was killed, may have left.
    #[cold]
    pub(super) fn recover(&self) -> Result<(), ArenaError> {
        let table = self.table()?;
        let pending = Handle::from_raw(self.state.pending.load(Ordering::Acquire));
        if let Some(table) = table
            && !pending.is_none()
        {
            self.complete(table, pending)?;
        }
        self.state.pending.store(0, Ordering::Release);
        let (mut live, mut opaque) = (0, 0);
        if let Some(table) = table {
            table.derive_index();
            for (_, entry) in table.live() {
                live += 1;
                opaque += u64::from(entry.is_opaque());
            }
        }
        self.state.live.store(live, Ordering::Relaxed);
        self.state.opaque.store(opaque, Ordering::Relaxed);
        let end = table.map_or(0, |table| table.used() as u64);
        self.state.end.store(end, Ordering::Relaxed);
        self.touch(true);
        self.sweep(table);
        Ok(())
    }

    /// Frees the blocks of the dict that nothing in it leads to.
    fn sweep(&self, table: Option<Table<'_>>) {
        let mut reachable = HashSet::from([self.state.table.load(Ordering::Relaxed)]);
        for (_, entry) in table.iter().flat_map(|table| table.live()) {
            let blocks = [entry.key, entry.value].into_iter().filter_map(item::block_of);
            reachable.extend(blocks.map(Handle::raw));
        }
        free_others(self.arena, self.state.handle(), &reachable);
    }

    /// Number of blocks that belong to the dict.
    #[cfg(test)]
    pub(in crate::collection) fn blocks(&self) -> usize {
        self.arena.children_of(self.state.handle()).len()
    }
}
