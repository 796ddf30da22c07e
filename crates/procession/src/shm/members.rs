//! The processes of the tree: who is registered, who is alive, and the burial of the dead.
//!
//! Each process has a slot. Its phase word holds the phase (bits 0–7), the pid of the process
//! that claimed it (8–31) and the generation of the slot (32–50):
//!
//! | phase      | set by                                    | if that process dies here          |
//! |------------|-------------------------------------------|------------------------------------|
//! | `FREE`     | the burial                                | –                                  |
//! | `RESERVED` | the parent, for a child it is about to start | the slot is buried with the parent, unless the child has made it `RUNNING` |
//! | `RUNNING`  | the process itself, or its parent on its behalf | buried by whoever notices     |
//! | `BURYING`  | the one that buries                       | the next holder of the lock goes on |
//!
//! Slots are given out and buried under one robust lock. Everything a burial does can be done
//! again, so one that was cut short is simply repeated: finish the reference count that the dead
//! process was changing, drop the references in its ledger, free the blocks it owned, free the
//! slot.
//!
//! # Ends that are no deaths
//!
//! A process that ends of its own accord writes its generation into `ENDED` of its slot before.
//! Whoever finds it dead can so tell it from one that was killed, and what it owned on purpose, a
//! lock that it has not released, stays its own. The slot goes to another process some day. So the
//! burial of a process that ended in this way first replaces its number in all objects that begin
//! with one (their type tag is [`OWNED`]) by [`NOBODY`]:
//!
//! - A number that still stands there when the slot is free or has another generation is that of a
//!   process that was killed. Whoever has drawn that conclusion replaces the number by
//!   compare-and-swap, which fails if the burial was first.
//! - A process that is killed after it wrote `ENDED` counts as ended. A burial that is cut short is
//!   done again, and finds fewer numbers to replace.

use crate::primitive::{AtomicU64, Ordering};
use crate::shm::arena::Arena;
use crate::shm::error::ArenaError;
use crate::shm::layout::{header, slot};
use crate::shm::refs::{OBJECT_HEADER, TAG};
use crate::shm::robust::{Liveness, Taken};
use crate::shm::word::{Kind, Member, SLOTS};
use crate::sys::process;

/// Type tag of objects that begin with a word whose bits 0–30 are the number of the member that
/// owns them.
pub(crate) const OWNED: u32 = u32::from_le_bytes(*b"lock");
/// In place of a number: owned by a process that has ended. No member has this number.
pub(crate) const NOBODY: u32 = 1;
/// The bits of the word that are the number.
const NUMBER: u64 = (1 << 31) - 1;

const FREE: u64 = 0;
const RESERVED: u64 = 1;
const RUNNING: u64 = 2;
const BURYING: u64 = 3;

fn pack(phase: u64, claimer: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(claimer) << 8 | phase
}

fn phase(word: u64) -> u64 {
    word & 0xFF
}

fn claimer(word: u64) -> u32 {
    word as u32 >> 8
}

fn generation(word: u64) -> u32 {
    (word >> 32) as u32
}

impl Arena {
    pub(super) fn slot_word(&self, slot: usize, field: u64) -> &AtomicU64 {
        self.memory.word(self.slot_at(slot) + field)
    }

    pub(super) fn slot_at(&self, slot: usize) -> u64 {
        debug_assert!(slot < SLOTS);
        self.layout.slots_at + slot as u64 * slot::SIZE
    }

    /// This process in the table; it is entered there by the first call.
    ///
    /// # Panics
    ///
    /// Panics when the tree has as many processes as an arena can tell apart.
    #[inline]
    pub(crate) fn me(&self) -> Member {
        if let Some(me) = Member::from_raw(self.me.load(Ordering::Relaxed)) {
            return me;
        }
        self.register()
    }

    /// Enters this process into the table: the root of the tree, or a child that was forked
    /// without our knowledge.
    #[cold]
    fn register(&self) -> Member {
        let member = self.claim_slot(None).expect("the process tree has too many processes");
        self.introduce(member, process::getpid());
        let bits = member.raw();
        match self.me.compare_exchange(0, bits, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => member,
            // Another thread was first; nobody has seen this slot yet.
            Err(first) => {
                let word = pack(FREE, 0, member.generation());
                self.slot_word(member.slot(), slot::PHASE).store(word, Ordering::Release);
                Member::from_raw(first).unwrap_or(member)
            }
        }
    }

    /// A slot for a child that is about to be started.
    ///
    /// # Errors
    ///
    /// [`ArenaError::TooManyProcesses`] when all slots are taken by living processes.
    pub(crate) fn reserve_member(&self) -> Result<Member, ArenaError> {
        let me = self.me();
        self.bury_some_orphans();
        if let Some(member) = self.claim_slot(Some(me)) {
            return Ok(member);
        }
        self.bury_orphans();
        self.claim_slot(Some(me)).ok_or(ArenaError::TooManyProcesses { limit: SLOTS })
    }

    fn claim_slot(&self, parent: Option<Member>) -> Option<Member> {
        let start = self.memory.word(header::NEXT_SLOT).load(Ordering::Relaxed) as usize % SLOTS;
        for at in (start..SLOTS).chain(0..start) {
            let word = self.slot_word(at, slot::PHASE);
            let seen = word.load(Ordering::Acquire);
            if phase(seen) != FREE {
                continue;
            }
            let next = Member::next_generation(generation(seen));
            let taken = pack(RESERVED, process::getpid(), next);
            if word.compare_exchange(seen, taken, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                let bits = parent.map_or(0, Member::raw);
                self.slot_word(at, slot::PARENT).store(u64::from(bits), Ordering::Release);
                self.memory.word(header::NEXT_SLOT).store(at as u64 + 1, Ordering::Relaxed);
                self.memory.word(header::SLOTS_USED).fetch_max(at as u64 + 1, Ordering::AcqRel);
                return Some(Member::new(at, next));
            }
        }
        None
    }

    /// Makes this process the one that `member` was reserved for. False if the parent has died
    /// meanwhile and the slot was buried with it: then what the parent meant to hand over is gone.
    pub(crate) fn become_member(&self, member: Member) -> bool {
        let alive = self.introduce(member, process::getpid());
        if alive {
            self.me.store(member.raw(), Ordering::Relaxed);
        }
        alive
    }

    /// Enters the child that now runs as `member`, so that its death is seen even if it comes
    /// before the child has done anything.
    pub(crate) fn set_pid(&self, member: Member, pid: u32) {
        self.introduce(member, pid);
    }

    /// Enters pid and birth mark, and makes a reserved slot a running one.
    fn introduce(&self, member: Member, pid: u32) -> bool {
        let at = member.slot();
        let word = self.slot_word(at, slot::PHASE);
        let seen = word.load(Ordering::Acquire);
        if generation(seen) != member.generation() || !matches!(phase(seen), RESERVED | RUNNING) {
            return false;
        }
        // Parent and child write the same numbers, in any order. Without a birth mark (the child
        // is dead already, or no descriptor is left) the process counts as dead, or by its pid alone.
        let birth = process::birth_mark(pid).ok().flatten().unwrap_or(0);
        self.slot_word(at, slot::BIRTH).store(birth, Ordering::Relaxed);
        self.slot_word(at, slot::PID).store(u64::from(pid), Ordering::Release);
        let running = pack(RUNNING, claimer(seen), member.generation());
        let (set, look) = (Ordering::AcqRel, Ordering::Acquire);
        match word.compare_exchange(seen, running, set, look) {
            Ok(_) => true,
            // The other side was first; or a burial was.
            Err(now) => now == running,
        }
    }

    /// Whether `member` can still do anything. A zombie cannot.
    pub(crate) fn is_alive(&self, member: Member) -> bool {
        let word = self.slot_word(member.slot(), slot::PHASE).load(Ordering::Acquire);
        if generation(word) != member.generation() {
            return false;
        }
        match phase(word) {
            RUNNING => self.runs_still(member.slot()),
            RESERVED => self.parent_of(member.slot()).is_some_and(|parent| self.is_alive(parent)),
            _ => false,
        }
    }

    /// Notes that this process is about to end of its own accord, so that a lock which it holds
    /// stays held.
    ///
    /// Ending by `exit` or by returning from `main` does this by itself. Call it before an end that
    /// goes past that, such as `_exit`.
    pub fn mark_ended_normally(&self) {
        if let Some(me) = Member::from_raw(self.me.load(Ordering::Relaxed)) {
            let generation = u64::from(me.generation());
            self.slot_word(me.slot(), slot::ENDED).store(generation, Ordering::SeqCst);
        }
    }

    /// Whether `member` is dead and did not end of its own accord.
    ///
    /// An object of its own that was signed over meanwhile does not have its number any more.
    pub(crate) fn was_killed(&self, member: Member) -> bool {
        !self.is_alive(member) && !self.ended_normally(member)
    }

    fn ended_normally(&self, member: Member) -> bool {
        let ended = self.slot_word(member.slot(), slot::ENDED).load(Ordering::SeqCst);
        ended == u64::from(member.generation())
    }

    fn runs_still(&self, at: usize) -> bool {
        let pid = self.slot_word(at, slot::PID).load(Ordering::Acquire) as u32;
        let birth = self.slot_word(at, slot::BIRTH).load(Ordering::Relaxed);
        match process::birth_mark(pid) {
            Ok(Some(now)) => now == birth || birth == 0,
            Ok(None) => false,
            // Without knowledge nobody is declared dead.
            Err(_) => true,
        }
    }

    fn parent_of(&self, at: usize) -> Option<Member> {
        Member::from_raw(self.slot_word(at, slot::PARENT).load(Ordering::Acquire) as u32)
    }

    /// Takes back a slot whose child was never started.
    pub(crate) fn cancel_member(&self, member: Member) {
        self.bury(member);
    }

    /// Takes back a slot whose child another process was to start, and has died over it. Returns the
    /// child's pid if there is one: then the slot stays its own.
    ///
    /// A child that did not come to life before will not do so any more.
    pub(crate) fn withdraw_member(&self, member: Member) -> Option<u32> {
        let _lock = self.lock_members();
        let at = member.slot();
        let word = self.slot_word(at, slot::PHASE);
        let seen = word.load(Ordering::Acquire);
        if generation(seen) == member.generation() && phase(seen) == RESERVED {
            self.bury_reserved(at, seen);
        }
        let now = word.load(Ordering::Acquire);
        let lives = generation(now) == member.generation() && phase(now) == RUNNING;
        lives.then(|| self.slot_word(at, slot::PID).load(Ordering::Acquire) as u32)
    }

    /// Drops all that a dead process held. The caller knows that it is dead; calling again does
    /// no harm.
    pub(crate) fn bury(&self, member: Member) {
        let _lock = self.lock_members();
        let word = self.slot_word(member.slot(), slot::PHASE).load(Ordering::Acquire);
        if generation(word) == member.generation() && phase(word) != FREE {
            self.bury_slot(member);
        }
    }

    fn lock_members(&self) -> Taken<'_> {
        let taken = self.lock_at(header::MEMBERS_LOCK).lock(self);
        if taken.owner_died.is_some() {
            for at in 0..self.slots_used() {
                let word = self.slot_word(at, slot::PHASE).load(Ordering::Acquire);
                if phase(word) == BURYING {
                    self.bury_slot(Member::new(at, generation(word)));
                }
            }
        }
        taken
    }

    fn slots_used(&self) -> usize {
        self.memory.word(header::SLOTS_USED).load(Ordering::Acquire) as usize
    }

    fn bury_slot(&self, member: Member) {
        let at = member.slot();
        let word = self.slot_word(at, slot::PHASE);
        word.store(pack(BURYING, 0, member.generation()), Ordering::SeqCst);
        // First, as it may write into the ledger of a child that is buried next.
        self.finish_op_of(member);
        for child in 0..self.slots_used() {
            let seen = self.slot_word(child, slot::PHASE).load(Ordering::Acquire);
            if phase(seen) == RESERVED && self.parent_of(child) == Some(member) {
                self.bury_reserved(child, seen);
            }
        }
        self.drop_ledger_of(member);
        for handle in self.blocks_of(Kind::OfMember(member)) {
            self.free_for(handle, member);
        }
        self.restore_hints();
        if self.ended_normally(member) {
            self.sign_over(member);
        }
        for field in [slot::PID, slot::BIRTH, slot::PARENT, slot::LEDGER, slot::CURSOR] {
            self.slot_word(at, field).store(0, Ordering::Relaxed);
        }
        for ancestor in 0..slot::LINEAGE_LEN {
            self.slot_word(at, slot::LINEAGE + 8 * ancestor as u64).store(0, Ordering::Relaxed);
        }
        self.slot_word(at, slot::OP_LOCK).store(0, Ordering::Relaxed);
        word.store(pack(FREE, 0, member.generation()), Ordering::SeqCst);
    }

    /// Lets everything that begins with the number of `member` belong to nobody.
    fn sign_over(&self, member: Member) {
        // With the lock the runs stand still, so that none is missed. A block may change hands
        // nevertheless; then the word is another, and the compare-and-swap leaves it.
        let _lock = self.lock_runs();
        self.for_each_block(|place, _, state| {
            let tag = |offset| self.memory.word(offset + TAG).load(Ordering::Acquire);
            if state.kind == Kind::Shared && tag(place.offset) == u64::from(OWNED) {
                disown(self.memory.word(place.offset + OBJECT_HEADER), member);
            }
        });
    }

    /// Buries a slot that was reserved by a process that is dead now, unless the child has come
    /// to life: exactly one of the two changes the phase.
    fn bury_reserved(&self, at: usize, seen: u64) {
        let burying = pack(BURYING, 0, generation(seen));
        let word = self.slot_word(at, slot::PHASE);
        if word.compare_exchange(seen, burying, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.bury_slot(Member::new(at, generation(seen)));
        }
    }

    /// Looks at the next two slots in turn, and buries those there whose parents did not. Two for
    /// each new process, so that the look overtakes the slots that new processes take.
    fn bury_some_orphans(&self) {
        let used = self.slots_used().max(1);
        let cursor = self.memory.word(header::SWEEP);
        for _ in 0..2 {
            let at = (cursor.load(Ordering::Relaxed) as usize + 1) % used;
            cursor.store(at as u64, Ordering::Relaxed);
            self.bury_if_dead(at);
        }
    }

    /// Buries every process that is found dead.
    pub(crate) fn bury_orphans(&self) {
        for at in 0..self.slots_used() {
            self.bury_if_dead(at);
        }
    }

    fn bury_if_dead(&self, at: usize) {
        let word = self.slot_word(at, slot::PHASE).load(Ordering::Acquire);
        let dead = match phase(word) {
            RUNNING => !self.runs_still(at),
            // Killed while it reserved, or right after.
            RESERVED => matches!(process::birth_mark(claimer(word)), Ok(None)),
            _ => false,
        };
        if !dead {
            return;
        }
        let _lock = self.lock_members();
        let now = self.slot_word(at, slot::PHASE).load(Ordering::Acquire);
        if now == word && phase(word) == RUNNING {
            self.bury_slot(Member::new(at, generation(word)));
        } else if now == word {
            self.bury_reserved(at, word);
        }
    }

    pub(super) fn member_count(&self) -> usize {
        (0..self.slots_used())
            .filter(|at| phase(self.slot_word(*at, slot::PHASE).load(Ordering::Relaxed)) != FREE)
            .count()
    }
}

/// Replaces the number of `member` in `word`, if it is there.
fn disown(word: &AtomicU64, member: Member) {
    let mut seen = word.load(Ordering::SeqCst);
    while seen & NUMBER == u64::from(member.raw()) {
        // The upper half says which thread; there is none any more.
        let nobody = seen & (NUMBER + 1) | u64::from(NOBODY);
        match word.compare_exchange(seen, nobody, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

impl Liveness for Arena {
    fn me(&self) -> Member {
        self.me()
    }

    fn is_alive(&self, member: Member) -> bool {
        self.is_alive(member)
    }
}
