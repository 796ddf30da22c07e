//! The programs of the README and of the guide are documentation tests.
//!
//! Compiled for them alone: a package of this crate does not have the pages.

#[doc = include_str!("../../../README.md")]
struct Readme;

#[doc = include_str!("../../../docs/connections.md")]
struct Connections;

#[doc = include_str!("../../../docs/managers.md")]
struct Managers;

#[doc = include_str!("../../../docs/migrating.md")]
struct Migrating;

#[doc = include_str!("../../../docs/pools.md")]
struct Pools;

#[doc = include_str!("../../../docs/processes.md")]
struct Processes;

#[doc = include_str!("../../../docs/queues.md")]
struct Queues;

#[doc = include_str!("../../../docs/shared-memory.md")]
struct SharedMemory;

#[doc = include_str!("../../../docs/start-methods.md")]
struct StartMethods;

#[doc = include_str!("../../../docs/synchronization.md")]
struct Synchronization;

#[doc = include_str!("../../../docs/troubleshooting.md")]
struct Troubleshooting;
