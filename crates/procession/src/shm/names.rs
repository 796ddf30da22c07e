//! Named shared memory: who unlinks a name, and when.
//!
//! Unlike all else, a name in `/dev/shm` outlives the processes that know it. So with each name
//! that the tree has to unlink there is a note beside it, which says whose it is:
//!
//! | entry in `/dev/shm`             | what it is                                               |
//! |---------------------------------|----------------------------------------------------------|
//! | `NAME`                          | the memory, under the name that the user knows           |
//! | `procession.TREE.INODE`         | the note: a symbolic link to `PROCESS/NAME`              |
//! | `procession.TREE.new-PROCESS-N` | memory that is being made and has no name yet            |
//!
//! `TREE` is the namespace of pids, and the first process of the tree; `PROCESS` is the one that
//! made the memory. A process is its pid and its start time, `PID-START`.
//!
//! # Who unlinks
//!
//! - Whoever is told to, [`unlink`]; with the name goes the note.
//! - The first process of the tree, when it ends normally: all names of the tree, but those whose
//!   maker lives on. A maker that has outlived the first process does it for its own.
//! - If they were killed, any other tree that makes or opens named memory: it finds both dead, by
//!   pid and start time. Names of other users and from other namespaces are left alone.
//!
//! Attaching never makes one an owner, so it makes no note.
//!
//! # When a process dies
//!
//! Memory is made under its temporary name, noted, and only then renamed, in one step that fails
//! if the name is taken. Killed before that, its maker leaves entries that name it; killed later,
//! it leaves a name with its note. Whoever removes a note of another tree first renames it into
//! one of its own tree: so no two of them act on one note, and one that dies then has left what
//! the rules above cover. A note tells its file by the inode, and a name that stands for another
//! file by now is left alone.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::primitive::Ordering;
use crate::shm::arena::Arena;
use crate::shm::error::ArenaError;
use crate::shm::layout::header;
use crate::sys::{named, process};

const PREFIX: &str = "procession.";
const NEW: &str = "new-";
/// Looking for what dead trees have left reads a folder, too much for every call.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

static SWEPT: Mutex<Option<Instant>> = Mutex::new(None);

/// A process, told from an earlier one with its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    pid: u32,
    /// 0 if it could not be found out.
    started: u64,
}

impl Life {
    fn mine() -> Self {
        let pid = process::getpid();
        Self { pid, started: process::start_time(pid).ok().flatten().unwrap_or(0) }
    }

    fn is_over(self) -> bool {
        match process::start_time(self.pid) {
            Ok(Some(started)) => self.started != 0 && started != self.started,
            Ok(None) => true,
            // Without knowledge nobody is declared dead.
            Err(_) => false,
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.started)
    }
}

impl FromStr for Life {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, started) = text.split_once('-').ok_or(())?;
        Ok(Self { pid: pid.parse().map_err(drop)?, started: started.parse().map_err(drop)? })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tree {
    namespace: u64,
    first: Life,
}

impl Tree {
    /// What the entries of the tree begin with.
    fn prefix(self) -> String {
        format!("{PREFIX}{}.{}.", self.namespace, self.first)
    }

    fn note(self, inode: u64) -> OsString {
        format!("{}{inode}", self.prefix()).into()
    }
}

/// An entry that speaks of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tree: Tree,
    kind: EntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    Note { inode: u64 },
    New { maker: Life },
}

/// `None` for a name that a user has chosen.
fn parse(name: &OsStr) -> Option<Entry> {
    let rest = name.to_str()?.strip_prefix(PREFIX)?;
    let (namespace, rest) = rest.split_once('.')?;
    let (first, rest) = rest.split_once('.')?;
    let tree = Tree { namespace: namespace.parse().ok()?, first: first.parse().ok()? };
    let kind = match rest.strip_prefix(NEW) {
        Some(rest) => EntryKind::New { maker: rest.rsplit_once('-')?.0.parse().ok()? },
        None => EntryKind::Note { inode: rest.parse().ok()? },
    };
    Some(Entry { tree, kind })
}

fn write_text(maker: Life, name: &OsStr) -> OsString {
    let mut text = format!("{maker}/").into_bytes();
    text.extend_from_slice(name.as_bytes());
    OsString::from_vec(text)
}

fn read_text(text: &OsStr) -> Option<(Life, &OsStr)> {
    let slash = text.as_bytes().iter().position(|byte| *byte == b'/')?;
    let (maker, name) = text.as_bytes().split_at(slash);
    Some((str::from_utf8(maker).ok()?.parse().ok()?, OsStr::from_bytes(&name[1..])))
}

impl Arena {
    /// Writes down that this process is the first of the tree.
    pub(super) fn note_first_process(&self) {
        let Life { pid, started } = Life::mine();
        let store = |at, value| self.memory.word(at).store(value, Ordering::Relaxed);
        store(header::FIRST_PID, u64::from(pid));
        store(header::FIRST_STARTED, started);
        // Without it this tree's names are never taken for a dead one's.
        store(header::PID_NAMESPACE, named::pid_namespace().unwrap_or(0));
    }

    fn tree(&self) -> Tree {
        let load = |at| self.memory.word(at).load(Ordering::Relaxed);
        let first =
            Life { pid: load(header::FIRST_PID) as u32, started: load(header::FIRST_STARTED) };
        Tree { namespace: load(header::PID_NAMESPACE), first }
    }
}

/// Makes memory of `size` zeroed bytes under a name that must be free; `mode` is that of the file.
///
/// With `track` the tree unlinks it in the end.
///
/// # Errors
///
/// `EEXIST` when the name is taken, `EINVAL` or `ENAMETOOLONG` when it is none, and what making a
/// file may report.
pub(crate) fn create(name: &OsStr, size: u64, mode: u32, track: bool) -> io::Result<OwnedFd> {
    let arena = current()?;
    sweep_sometimes(arena);
    match create_once(arena, name, size, mode, track) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // It may be a dead tree's.
            sweep(arena)?;
            create_once(arena, name, size, mode, track)
        }
        result => result,
    }
}

fn create_once(
    arena: &Arena,
    name: &OsStr,
    size: u64,
    mode: u32,
    track: bool,
) -> io::Result<OwnedFd> {
    let me = Life::mine();
    let (draft, fd) = Draft::new(arena, me, mode)?;
    named::set_size(&fd, size)?;
    let note = if track { Some(write_note(arena, me, &fd, name)?) } else { None };
    match named::rename(&draft.0, name) {
        Ok(()) => Ok(fd),
        Err(error) => {
            if let Some(note) = note {
                forget(&note);
            }
            Err(error)
        }
    }
}

/// The temporary name of memory that is being made.
struct Draft(OsString);

impl Draft {
    fn new(arena: &Arena, me: Life, mode: u32) -> io::Result<(Self, OwnedFd)> {
        let prefix = arena.tree().prefix();
        loop {
            let number = arena.word_at(header::DRAFTS).fetch_add(1, Ordering::Relaxed);
            let name = OsString::from(format!("{prefix}{NEW}{me}-{number}"));
            match named::create(&name, mode) {
                Ok(fd) => return Ok((Self(name), fd)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Not there any more once it has been renamed.
        forget(&self.0);
    }
}

/// Notes that the tree has to unlink `name` as long as it stands for this file; the note's name.
fn write_note(arena: &Arena, me: Life, fd: &OwnedFd, name: &OsStr) -> io::Result<OsString> {
    arena.word_at(header::HAS_NAMES).store(1, Ordering::Relaxed);
    let note = arena.tree().note(named::inode(fd)?);
    let text = write_text(me, name);
    match named::write_note(&note, &text) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Of an earlier file with the same number, which a stranger has unlinked.
            named::unlink(&note)?;
            named::write_note(&note, &text)?;
        }
        result => result?,
    }
    Ok(note)
}

/// Removes an entry; that it is gone already, or cannot be removed now, is no matter: the end of
/// the tree and other trees will see to it.
fn forget(entry: &OsStr) {
    let _ = named::unlink(entry);
}

/// Opens the memory of this name, to read and to write.
///
/// # Errors
///
/// `ENOENT` when there is no such name, and what opening a file may report.
pub(crate) fn attach(name: &OsStr) -> io::Result<OwnedFd> {
    open(name, named::READ_WRITE, 0)
}

/// Opens memory by its name; `flags` and `mode` are those of `shm_open`.
///
/// # Errors
///
/// `ENOENT` when there is no such name, and what opening a file may report.
pub(crate) fn open(name: &OsStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    sweep_sometimes(current()?);
    named::open(name, flags, mode)
}

/// Takes a name away. Who has the memory keeps it.
///
/// # Errors
///
/// `ENOENT` when there is no such name, `EPERM` or `EACCES` when it is another user's.
pub(crate) fn unlink(name: &OsStr) -> io::Result<()> {
    let found = named::identify(name)?;
    named::unlink(name)?;
    if Arena::exists() {
        forget(&current()?.tree().note(found.inode));
    }
    Ok(())
}

fn current() -> io::Result<&'static Arena> {
    Arena::current().map_err(|error| match error {
        ArenaError::Os { source, .. } => source,
        other => io::Error::other(other),
    })
}

fn sweep_sometimes(arena: &Arena) {
    // Another thread at it is enough; a child forked meanwhile finds it locked for ever.
    let Ok(mut swept) = SWEPT.try_lock() else { return };
    if swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
        // What cannot be listed or removed now stays for later.
        let _ = sweep(arena);
        *swept = Some(Instant::now());
    }
}

/// Removes what dead trees have left.
fn sweep(arena: &Arena) -> io::Result<()> {
    let mine = arena.tree();
    for name in named::names(PREFIX)? {
        let Some(entry) = parse(&name) else { continue };
        let foreign = entry.tree != mine && entry.tree.namespace == mine.namespace;
        if foreign && mine.namespace != 0 && is_own(&name) && entry.tree.first.is_over() {
            clear(mine, &name, entry.kind);
        }
    }
    Ok(())
}

/// Whether the entry is this user's. Anybody may put entries there, and what they say is believed
/// only of the one who wrote them.
fn is_own(entry: &OsStr) -> bool {
    named::identify(entry).is_ok_and(|found| found.user == named::user())
}

/// Removes an entry of a tree whose first process is dead, if its maker is dead too.
fn clear(mine: Tree, entry: &OsStr, kind: EntryKind) {
    match kind {
        EntryKind::New { maker } if maker.is_over() => forget(entry),
        EntryKind::New { .. } => {}
        EntryKind::Note { inode } => {
            if maker_of(entry).is_some_and(Life::is_over) {
                let claimed = mine.note(inode);
                if named::rename(entry, &claimed).is_ok() {
                    unlink_noted(&claimed, inode);
                }
            }
        }
    }
}

fn maker_of(note: &OsStr) -> Option<Life> {
    read_text(&named::read_note(note).ok()?).map(|(maker, _)| maker)
}

/// Unlinks the name that a note is about, and then the note.
fn unlink_noted(note: &OsStr, inode: u64) {
    let Ok(text) = named::read_note(note) else { return };
    if let Some((_, name)) = read_text(&text)
        && named::identify(name)
            .is_ok_and(|found| found.inode == inode && found.user == named::user())
    {
        forget(name);
    }
    forget(note);
}

/// Runs when this process ends normally: unlinks what nobody is left to unlink.
pub(super) extern "C" fn unlink_at_exit() {
    let Ok(arena) = current() else { return };
    if arena.word_at(header::HAS_NAMES).load(Ordering::Relaxed) == 0 {
        return;
    }
    let (tree, pid) = (arena.tree(), process::getpid());
    let is_first = tree.first.pid == pid && !tree.first.is_over();
    if !is_first && !tree.first.is_over() {
        return;
    }
    for entry in named::names(&tree.prefix()).unwrap_or_default() {
        let Some(Entry { kind: EntryKind::Note { inode }, .. }) = parse(&entry) else { continue };
        let Some(maker) = maker_of(&entry) else { continue };
        if is_own(&entry) && (maker.pid == pid || is_first && maker.is_over()) {
            unlink_noted(&entry, inode);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const TREE: Tree = Tree { namespace: 4_026_531_836, first: Life { pid: 12, started: 345 } };
    const MAKER: Life = Life { pid: 67, started: 89 };

    #[test]
    fn entries_are_read_as_they_were_written() {
        let note = Entry { tree: TREE, kind: EntryKind::Note { inode: 77 } };
        assert_eq!(parse(&TREE.note(77)), Some(note));
        let new = format!("{}{NEW}{MAKER}-3", TREE.prefix());
        let expected = Entry { tree: TREE, kind: EntryKind::New { maker: MAKER } };
        assert_eq!(parse(OsStr::new(&new)), Some(expected));
    }

    #[test]
    fn names_that_users_choose_are_not_entries() {
        for name in ["psm_1234", "procession.", "procession.data", "procession.1.2-3.x", "sem.mp"] {
            assert_eq!(parse(OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn texts_are_read_as_they_were_written() {
        for name in ["psm_1", "/psm_1", "with/slash"] {
            let text = write_text(MAKER, OsStr::new(name));
            assert_eq!(read_text(&text), Some((MAKER, OsStr::new(name))));
        }
        assert_eq!(read_text(OsStr::new("elsewhere")), None);
    }

    #[test]
    fn this_process_lives_and_one_with_another_start_does_not() {
        let me = Life::mine();
        assert!(!me.is_over());
        assert!(Life { started: me.started + 1, ..me }.is_over());
    }
}
