//! Plain data that processes share, and memory with a name.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use procession::channel::Queue;
use procession::memory::{Array, Atomic, NameError, OwnerDied, SharedMemory, Value};
use procession::process::{self, Builder, StartMethod};
use procession::shm::{Arena, Block};
use procession_testing::ROLE;
use procession_testing::process::kill;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What their memory is called.
const NAME: &str = "PROCESSION_TEST_NAME";

fn main() -> ExitCode {
    procession_testing::run_by_role(
        other_tree,
        process::init,
        procession_testing::tests![
            value_is_the_same_in_every_process,
            array_is_the_same_in_every_process,
            atomic_is_the_same_in_every_process,
            data_lives_while_only_a_message_names_it,
            data_goes_with_its_last_handle,
            killed_holder_is_told_once_to_the_next,
            killed_holder_leaves_what_set_replaces,
            named_memory_is_attached_in_a_child,
            name_that_a_child_made_outlives_the_child,
            dropped_memory_is_unmapped,
            taken_missing_and_impossible_names_are_errors,
            attaching_never_unlinks,
            normal_end_of_a_tree_unlinks_its_names,
            names_of_a_killed_tree_go_with_the_next_use,
            killed_at_any_moment_a_tree_leaves_nothing_for_good
        ],
    )
}

const METHODS: [StartMethod; 2] = [StartMethod::Fork, StartMethod::Spawn];

/// Calls `function` in a child of each kind, one after the other.
fn in_children<F, A>(function: F, args: &A)
where
    F: Fn(A) + Copy + Send + 'static,
    A: Serialize + DeserializeOwned + Clone,
{
    for method in METHODS {
        let builder = Builder::new().start_method(method);
        builder.spawn(function, args.clone()).unwrap().join().unwrap();
    }
}

fn value_is_the_same_in_every_process() {
    let point = Value::new([1.0_f64, 2.0]).unwrap();
    in_children(|point: Value<[f64; 2]>| point.with_lock(|[x, _]| *x += 10.0).unwrap(), &point);
    assert_eq!(point.get().unwrap(), [21.0, 2.0]);
}

fn array_is_the_same_in_every_process() {
    let numbers = Array::from_slice(&[1_u16, 2, 3]).unwrap();
    let double = |numbers: Array<u16>| numbers.lock().unwrap().iter_mut().for_each(|n| *n *= 2);
    in_children(double, &numbers);
    assert_eq!(*numbers.lock().unwrap(), [4, 8, 12]);
}

fn atomic_is_the_same_in_every_process() {
    let hits: Atomic<AtomicU64> = Atomic::new(5).unwrap();
    let hit = |hits: Atomic<AtomicU64>| {
        hits.fetch_add(1, Ordering::Relaxed);
    };
    in_children(hit, &hits);
    assert_eq!(hits.load(Ordering::Relaxed), 7);
}

fn blocks() -> usize {
    Arena::current().unwrap().stats().blocks
}

fn data_lives_while_only_a_message_names_it() {
    let queue: Queue<(Value<u32>, Array<u8>)> = Queue::new().unwrap();
    let pair = (Value::new(7_u32).unwrap(), Array::from_slice(b"seven").unwrap());
    queue.put(&pair).unwrap();
    drop(pair);
    let (value, array) = queue.get().unwrap();
    assert_eq!((value.get().unwrap(), array.lock().unwrap().to_vec()), (7, b"seven".to_vec()));
}

fn data_goes_with_its_last_handle() {
    drop(Value::new(1_u8).unwrap());
    let before = blocks();
    let kept = Block::new(1 << 20).unwrap();
    let array = Array::<u64>::new(1 << 17).unwrap();
    let clone = array.clone();
    drop(array);
    assert_eq!(blocks(), before + 2, "the clone holds the array");
    drop((clone, kept));
    assert_eq!(blocks(), before);
}

/// Kills itself with the lock held and one of two numbers changed.
fn die_half_way(pair: Value<[u64; 2]>) {
    let mut numbers = pair.lock().unwrap();
    numbers[0] += 1;
    // The compiler must not think that nobody sees it.
    std::hint::black_box(&mut *numbers);
    kill(std::process::id());
}

fn value_of_a_killed_holder() -> Value<[u64; 2]> {
    let pair = Value::new([5, 5]).unwrap();
    let handle = Builder::new().spawn(die_half_way, pair.clone()).unwrap();
    handle.join().unwrap_err();
    pair
}

fn killed_holder_is_told_once_to_the_next() {
    let pair = value_of_a_killed_holder();
    let died = pair.lock().unwrap_err();
    assert!(died.to_string().contains("half-changed"), "{died}");
    let mut numbers = died.into_inner();
    assert_eq!(*numbers, [6, 5], "what it had written is there");
    numbers[1] = 6;
    drop(numbers);
    assert_eq!(pair.get().unwrap(), [6, 6]);
}

fn killed_holder_leaves_what_set_replaces() {
    let pair = value_of_a_killed_holder();
    let told = pair.with_lock(|_| panic!("called on what a dead process left"));
    assert!(told.is_err());
    assert_eq!(pair.get().unwrap(), [6, 5]);
    let pair = value_of_a_killed_holder();
    pair.set([1, 2]);
    assert_eq!(pair.get().unwrap(), [1, 2]);
    let pair = value_of_a_killed_holder();
    assert_eq!(pair.get().unwrap_or_else(OwnerDied::into_inner), [6, 5]);
}

/// A name that no other test uses.
fn unused_name(part: &str) -> String {
    format!("procession-test-{}-{part}", std::process::id())
}

fn named_memory_is_attached_in_a_child() {
    let memory = SharedMemory::create(unused_name("child"), 100).unwrap();
    assert_eq!(memory.len(), 100);
    memory.write(3, b"from the parent");
    let answer = |name: String| {
        let memory = SharedMemory::attach(name).unwrap();
        let mut text = [0; 15];
        memory.read(3, &mut text);
        memory.write(50, &text);
    };
    for method in METHODS {
        memory.write(50, &[0; 15]);
        let name = memory.name().to_str().unwrap().to_owned();
        Builder::new().start_method(method).spawn(answer, name).unwrap().join().unwrap();
        let mut text = [0; 15];
        memory.read(50, &mut text);
        assert_eq!(&text, b"from the parent", "{method:?}");
    }
    memory.unlink().unwrap();
}

fn name_that_a_child_made_outlives_the_child() {
    for method in METHODS {
        let make = |name: String| SharedMemory::create(name, 10).unwrap().write(0, b"made");
        let name = unused_name("made");
        Builder::new().start_method(method).spawn(make, name.clone()).unwrap().join().unwrap();
        let memory = SharedMemory::attach(&name).unwrap();
        let mut text = [0; 4];
        memory.read(0, &mut text);
        assert_eq!(&text, b"made", "{method:?}");
        memory.unlink().unwrap();
        assert_eq!(names_with(&name), BTreeSet::new());
    }
}

fn dropped_memory_is_unmapped() {
    let name = unused_name("dropped");
    let is_mapped = || fs::read_to_string("/proc/self/maps").unwrap().contains(&name);
    let memory = SharedMemory::create(&name, 10).unwrap();
    assert!(is_mapped());
    memory.unlink().unwrap();
    drop(memory);
    assert!(!is_mapped());
}

fn taken_missing_and_impossible_names_are_errors() {
    let name = unused_name("taken");
    assert!(matches!(SharedMemory::attach(&name), Err(NameError::NotFound { .. })));
    let memory = SharedMemory::create(&name, 1).unwrap();
    let again = SharedMemory::create(format!("/{name}"), 1).unwrap_err();
    assert!(matches!(again, NameError::AlreadyExists { .. }), "{again}");
    memory.unlink().unwrap();
    assert!(matches!(memory.unlink(), Err(NameError::NotFound { .. })), "it is gone");
    assert!(matches!(SharedMemory::create(&name, 0), Err(NameError::Empty { .. })));
    for impossible in ["", "..", "a/b"] {
        assert!(matches!(SharedMemory::create(impossible, 1), Err(NameError::Os { .. })));
    }
    assert!(matches!(SharedMemory::create("a\0b", 1), Err(NameError::ZeroByte { .. })));
    let too_long = "x".repeat(300);
    assert!(matches!(SharedMemory::create(too_long, 1), Err(NameError::Os { .. })));
    assert_eq!(notes(), BTreeSet::new(), "a failed attempt leaves nothing");
}

/// What `/dev/shm` has under names with this text in them.
fn names_with(text: &str) -> BTreeSet<String> {
    let entries = fs::read_dir("/dev/shm").unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(text)).collect()
}

/// The entries that speak of this process's tree.
fn notes() -> BTreeSet<String> {
    names_with(&format!(".{}-", std::process::id()))
}

/// Starts this program once more, as the first process of another tree.
fn start_tree(role: &str, name: &str) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(ROLE, role).env(NAME, name).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn other_tree(role: &str) -> ExitCode {
    process::init();
    let name = &env::var(NAME).unwrap();
    match role {
        "attach" => drop(SharedMemory::attach(name).unwrap()),
        "make" => drop(SharedMemory::create(name, 10).unwrap()),
        "make in a child" => make_in_a_child(name),
        "make and wait" => {
            drop(SharedMemory::create(name, 10).unwrap());
            say("made");
            // Until the other side is gone.
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        "make and unlink" => loop {
            SharedMemory::create(name, 10).unwrap().unlink().unwrap();
            say("again");
        },
        other => panic!("no such role: {other}"),
    }
    ExitCode::SUCCESS
}

fn make_in_a_child(name: &str) {
    let make = |name: String| drop(SharedMemory::create(name, 10).unwrap());
    Builder::new().spawn(make, name.to_owned()).unwrap().join().unwrap();
    assert!(names_with(name).contains(name), "the tree lives");
}

/// Tells the process that started this one.
fn say(word: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "{word}").unwrap();
}

fn attaching_never_unlinks() {
    let name = unused_name("attached");
    let memory = SharedMemory::create(&name, 10).unwrap();
    assert!(start_tree("attach", &name).wait().unwrap().success());
    drop(SharedMemory::attach(&name).unwrap());
    memory.unlink().unwrap();
}

fn normal_end_of_a_tree_unlinks_its_names() {
    for role in ["make", "make in a child"] {
        let name = unused_name("end");
        assert!(start_tree(role, &name).wait().unwrap().success());
        assert_eq!(names_with(&name), BTreeSet::new(), "{role}");
    }
}

/// Makes the other tree's leavings go, whenever the last look was.
fn look_for_dead_trees() {
    let name = unused_name("look");
    let memory = SharedMemory::create(&name, 1).unwrap();
    // A name that is taken may be a dead tree's.
    SharedMemory::create(&name, 1).unwrap_err();
    memory.unlink().unwrap();
}

fn names_of_a_killed_tree_go_with_the_next_use() {
    let name = unused_name("killed");
    let mut tree = start_tree("make and wait", &name);
    let mut line = String::new();
    BufReader::new(tree.stdout.take().unwrap()).read_line(&mut line).unwrap();
    look_for_dead_trees();
    assert!(names_with(&name).contains(&name), "a living tree keeps its names");
    let pid = tree.id();
    kill(pid);
    tree.wait().unwrap();
    look_for_dead_trees();
    assert_eq!(names_with(&name), BTreeSet::new());
    assert_eq!(names_with(&format!(".{pid}-")), BTreeSet::new(), "its note goes too");
}

/// Kills a tree each time at another point of making and unlinking a name.
fn killed_at_any_moment_a_tree_leaves_nothing_for_good() {
    const KILLS: usize = 60;
    let name = unused_name("any-moment");
    for round in 0..KILLS {
        let mut tree = start_tree("make and unlink", &name);
        let mut lines = BufReader::new(tree.stdout.take().unwrap()).lines();
        for _ in 0..=round {
            lines.next().unwrap().unwrap();
        }
        let pid = tree.id();
        kill(pid);
        tree.wait().unwrap();
        // The next round's tree makes the same name, so what is left of this one must not be in
        // the way.
        look_for_dead_trees();
        assert_eq!(names_with(&name), BTreeSet::new(), "round {round}");
        assert_eq!(names_with(&format!(".{pid}-")), BTreeSet::new(), "round {round}");
    }
}
