//! Dicts and lists among processes that are killed at any moment.

mod deaths;

use std::process::ExitCode;

use procession::collection::{Dict, List};
use procession::process::{self, Builder, JoinHandle};
use procession::shm::Arena;

use self::deaths::{kill, work_before_kill};

const WORKERS: usize = 2;
const KILLS: usize = 200;
/// So many elements go into the list, and come out of it, together.
const TRIPLE: usize = 3;

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            dict_survives_its_users,
            list_survives_its_users,
            containers_are_passed_to_spawned_processes
        ],
    )
}

type Ledger = Dict<String, (u64, String)>;

/// A value whose bytes show whether it is whole; in a word of the container, in a block, apart.
fn value(number: u64) -> (u64, String) {
    let len = match number % 64 {
        0 => 40_000,
        small if small % 2 == 0 => 0,
        other => other as usize * 30,
    };
    (number, (number % 10).to_string().repeat(len))
}

fn check(value: &(u64, String)) {
    assert!(*value == self::value(value.0), "a value is not whole");
}

/// Uses a dict in all ways. What is put in together under "a…" and "b…" is the same.
fn use_dict(dict: &Ledger, worker: u64) {
    for number in 0_u64.. {
        let key = (number * 7 + worker) % 23;
        let stamp = value(number * 31 + worker);
        let pair = [(format!("a{key}"), stamp.clone()), (format!("b{key}"), stamp.clone())];
        dict.extend(&pair).unwrap();
        dict.insert(&format!("own {worker} {}", number % 50), &stamp).unwrap();
        match number % 11 {
            3 => drop(dict.remove(&format!("own {worker} {}", number % 17)).unwrap()),
            5 => drop(dict.get(&format!("a{key}")).unwrap().map(|found| check(&found))),
            7 => check_dict(dict),
            9 if number % 5 == 0 => dict.clear().unwrap(),
            _ => {}
        }
    }
}

fn check_dict(dict: &Ledger) {
    let entries = dict.entries().unwrap();
    entries.iter().for_each(|(_, value)| check(value));
    let under = |letter: char| {
        let mut found: Vec<_> = entries
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(letter)?.to_owned(), value.0)))
            .collect();
        found.sort_unstable();
        found
    };
    assert_eq!(under('a'), under('b'), "half of what was put in together");
}

/// Uses a list in all ways. It consists of threes at every moment.
fn use_list(list: &List<(u64, String)>, worker: u64) {
    for number in 0_u64.. {
        let stamp = value(number * 31 + worker);
        list.extend(&vec![stamp.clone(); TRIPLE]).unwrap();
        if number % 7 == 3 {
            check_list(list);
        }
        if number % 40 == 5 {
            list.clear().unwrap();
        }
    }
}

fn check_list(list: &List<(u64, String)>) {
    let values = list.to_vec().unwrap();
    values.iter().for_each(check);
    for triple in values.chunks(TRIPLE) {
        assert!(triple.len() == TRIPLE && triple.iter().all(|value| *value == triple[0]));
    }
}

fn hire(job: &dyn Fn(u64), number: u64) -> JoinHandle<()> {
    Builder::new().daemon(true).fork(|| job(number)).unwrap()
}

fn spree(job: &dyn Fn(u64), look: &dyn Fn()) {
    let mut workers: Vec<_> = (0..WORKERS as u64).map(|number| hire(job, number)).collect();
    for number in 0..KILLS {
        work_before_kill(number, 300_000);
        kill(workers.remove(0));
        look();
        workers.push(hire(job, (number + WORKERS) as u64));
    }
    workers.into_iter().for_each(kill);
}

fn blocks() -> usize {
    Arena::current().unwrap().stats().blocks
}

fn dict_survives_its_users() {
    let before = blocks();
    let dict = Ledger::new().unwrap();
    spree(&|worker| use_dict(&dict, worker), &|| check_dict(&dict));
    let entries = dict.entries().unwrap();
    assert_eq!(dict.len(), entries.len());
    for (key, value) in entries {
        assert_eq!(dict.get(&key).unwrap(), Some(value), "{key:?} is not found");
    }
    dict.clear().unwrap();
    let own = blocks() - before;
    drop(dict);
    // What belongs to the dict alone; the ledger of this process stays.
    assert!(blocks() <= before + 1, "{} blocks are left, {own} with the empty dict", blocks());
}

fn list_survives_its_users() {
    let before = blocks();
    let list = List::new().unwrap();
    spree(&|worker| use_list(&list, worker), &|| check_list(&list));
    list.clear().unwrap();
    drop(list);
    assert!(blocks() <= before + 1, "{} blocks are left of {before}", blocks());
}

fn containers_are_passed_to_spawned_processes() {
    let dict: Dict<String, List<u32>> = Dict::new().unwrap();
    let list = List::new().unwrap();
    dict.insert("list", &list).unwrap();
    let child = process::spawn(
        |(dict, number): (Dict<String, List<u32>>, u32)| {
            dict.get("list").unwrap().unwrap().push(&number).unwrap();
        },
        (dict, 7),
    );
    child.unwrap().join().unwrap();
    assert_eq!(list.to_vec().unwrap(), [7]);
}
