"""What differs on purpose from the original: each line of `docs/differences.md` has a test.

Here are the table of the tests, what holds it to the page, and tests of what is tested nowhere
else.
"""

import ast
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

import procession
from procession import _procession, managers, resource_sharer
from procession.futures import ProcessPoolExecutor
from tests.unit.test_large_messages import LARGE, grid
from tests.unit.waiting import comes_true, is_running

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "differences.md"

# The bold words of each line, and its tests by file and name.
TESTS = {
    # Queues
    "`put` returns once the object is in shared memory.": [
        "unit/test_queue.py::test_what_was_put_is_there_at_once",
        "unit/test_queue.py::test_items_of_a_killed_process_can_be_read",
    ],
    "`put` refuses what cannot be pickled": [
        "unit/test_queue.py::test_put_refuses_what_cannot_be_pickled_and_puts_nothing",
    ],
    "What was put does not change any more": [
        "unit/test_queue.py::test_item_is_as_it_was_when_it_was_put",
    ],
    "`empty()` and `qsize()` are exact": [
        "unit/test_queue.py::test_what_was_put_is_there_at_once",
        "unit/test_differences.py::test_closed_queue_tells_whether_it_is_empty",
    ],
    "A process that ends never waits for its queues.": [
        "unit/test_queue.py::test_process_with_unread_items_can_be_joined",
    ],
    "A subclass with an `_on_queue_feeder_error` of its own": [
        "unit/test_queue_subclasses.py::test_overridden_hook_gets_what_cannot_be_pickled",
    ],
    "`JoinableQueue.join()` raises `TasksLostError`": [
        "unit/test_queue_subclasses.py::test_join_tells_of_a_killed_consumer",
    ],
    "`connection.wait` takes queues as they are.": [
        "unit/test_queue_readiness.py::test_wait_takes_queues_readers_and_all_else",
    ],
    "`queue._reader` has a descriptor for `select` and asyncio": [
        "unit/test_queue_readiness.py::test_reader_is_readable_while_there_is_something",
        "unit/test_queue_readiness.py::test_asyncio_calls_back_for_each_item",
        "unit/test_queue_readiness.py::test_selector_wakes_for_a_thread_that_puts",
    ],
    "That descriptor may be readable once in vain": [
        "unit/test_queue_readiness.py::test_killed_processes_leave_the_descriptor_right",
    ],
    "Queues can be passed on at any time": [
        "unit/test_queue.py::test_queue_travels_through_a_queue",
        "unit/test_queue.py::test_queue_travels_with_a_task",
    ],
    "A queue made for one start method can be used by children of every other.": [
        "unit/test_differences.py::test_queue_is_for_children_of_every_method",
    ],
    # Pools and executors
    "A killed worker fails the task it was running": [
        "unit/test_pool_deaths.py::test_death_of_a_worker_fails_the_task_it_ran",
        "unit/test_pool_deaths.py::test_map_with_a_death_says_which_task",
    ],
    "A killed worker is replaced": [
        "unit/test_pool_deaths.py::test_dead_worker_is_replaced",
        "unit/test_pool_deaths.py::test_map_is_complete_while_workers_are_killed",
    ],
    "`Pool(retries=n)` runs such a task again": [
        "unit/test_pool_deaths.py::test_task_is_run_again_if_the_pool_may",
        "unit/test_pool_deaths.py::test_task_is_not_run_again_for_ever",
    ],
    "A pool whose workers cannot start says why": [
        "unit/test_pool_deaths.py::test_worker_that_cannot_start_breaks_the_pool_with_the_reason",
        "unit/test_pool_deaths.py::test_worker_that_leaves_before_it_is_ready_breaks_the_pool",
    ],
    "Workers that cannot start are not started for ever.": [
        "unit/test_pool_rows.py::test_initializer_that_raises_is_run_a_few_times_only",
    ],
    "A call with `timeout=` that takes longer loses its worker": [
        "unit/test_pool_calls.py::test_call_that_takes_too_long_loses_its_worker",
    ],
    "`cancel()` gives up calls that wait.": [
        "unit/test_pool_calls.py::test_queued_call_that_is_cancelled_is_never_made",
    ],
    "`cancel()` gives up calls that run": [
        "unit/test_pool_calls.py::test_running_call_is_cancelled_with_its_worker",
    ],
    "Calls that a pool had not done when it was terminated raise `ProcessError`.": [
        "unit/test_differences.py::test_calls_of_a_terminated_pool_fail",
    ],
    "Workers pay no heed to Ctrl-C": [
        "unit/test_pool_interrupt.py::test_interrupted_program_ends_with_one_traceback",
    ],
    "`imap` reads its input as results are asked for.": [
        "unit/test_pool_rows.py::test_input_is_read_as_results_are_asked_for",
    ],
    "`map` raises the failure of the first item in order": [
        "unit/test_differences.py::test_map_raises_the_failure_of_the_first_item_in_order",
        "unit/test_pool_rows.py::test_first_failure_is_raised_at_once_if_wanted",
    ],
    "A call of `map` with more than 4 MiB of arguments begins before all of them are pickled.": [
        "unit/test_differences.py::test_map_of_much_begins_before_all_is_pickled",
    ],
    "Without a number, a pool has as many workers as processors this process may use": [
        "unit/test_pool_rows.py::test_number_of_workers_goes_by_what_this_process_may_use",
    ],
    "Tasks may start processes and use pools": [
        "unit/test_pool_rows.py::test_task_uses_a_pool_of_its_own",
    ],
    "What a worker has started ends with it.": [
        "unit/test_differences.py::test_child_of_a_worker_ends_with_it",
    ],
    "A task that raises `SystemExit` or `KeyboardInterrupt`": [
        "unit/test_differences.py::test_task_that_raises_what_ends_programs_is_a_failed_task",
    ],
    "An argument that cannot be unpickled": [
        "unit/test_pool_rows.py::test_argument_that_cannot_be_unpickled_fails_its_task_alone",
    ],
    "A result that cannot be unpickled": [
        "unit/test_differences.py::test_result_that_cannot_be_unpickled_fails_its_task_alone",
        "unit/test_pool_rows.py::test_exception_that_cannot_be_made_again_fails_its_task_alone",
    ],
    "A callback that raises": [
        "unit/test_differences.py::test_callback_that_raises_is_reported",
        "unit/test_pool_rows.py::test_callback_that_raises_ends_nothing",
    ],
    "`ProcessPoolExecutor` survives the death of a worker": [
        "unit/test_futures.py::test_dead_worker_fails_its_call_alone",
    ],
    "What an executor cannot unpickle fails its own call.": [
        "unit/test_differences.py::test_what_an_executor_cannot_unpickle_fails_its_own_call",
        "unit/test_pool_rows.py::test_executor_survives_an_exception_that_cannot_be_made_again",
    ],
    "An executor starts all its workers with the first call.": [
        "unit/test_differences.py::test_executor_starts_all_its_workers_with_the_first_call",
    ],
    "`max_tasks_per_child` of an executor works with fork too.": [
        "unit/test_pool_rows.py::test_executor_replaces_workers_after_their_tasks",
    ],
    "`shutdown(cancel_futures=True)` cancels every call that no worker has begun.": [
        "unit/test_differences.py::test_shutdown_cancels_every_call_that_was_not_begun",
    ],
    "A subclass that replaces private methods": [
        "unit/test_pool_subclasses.py::test_replaced_hook_is_used",
        "unit/test_queue_subclasses.py::test_feeder_of_a_subclass_is_used",
        "unit/test_futures.py::test_subclass_with_a_hook_of_the_original",
    ],
    "A foreign context": [
        "unit/test_pool_subclasses.py::test_context_of_the_original",
        "unit/test_futures.py::test_context_of_the_original",
    ],
    # Connections and large messages
    "Objects that contain queues, locks and the like can be sent through a pipe.": [
        "unit/test_connection.py::test_queue_travels_through_a_pipe",
        "unit/test_differences.py::test_lock_travels_through_a_pipe",
    ],
    "Threads may share an end of a pipe": [
        "unit/test_connection.py::test_threads_never_mix_their_messages",
    ],
    "A listener with a key waits for no client that says nothing": [
        "unit/test_connection.py::test_silent_and_vanished_clients_hold_up_nobody",
    ],
    "An empty key is a key": [
        "cross/test_connection.py::test_empty_key_is_a_key",
    ],
    "`connection.wait` raises `OSError` for a number that is no descriptor.": [
        "unit/test_connection.py::test_descriptor_that_is_not_open_is_an_error",
    ],
    "Large arrays and buffers arrive as writable views of shared memory": [
        "unit/test_large_messages.py::test_received_buffer_is_shared_memory_and_may_be_written",
        "unit/test_large_messages.py::test_large_array_is_a_view_of_shared_memory",
    ],
    "After a fork, parent and child see each other's writes to such a view.": [
        "unit/test_differences.py::test_forked_processes_have_the_same_view",
    ],
    "Large buffers of tasks and results are views too": [
        "unit/test_pool_buffers.py::test_worker_gets_a_view_that_it_may_write_to",
        "unit/test_pool_buffers.py::test_results_are_views_that_may_be_written_to",
        "unit/test_pool_buffers.py::test_executor_passes_them_too",
    ],
    "A task that may be tried again gets a copy": [
        "unit/test_pool_buffers.py::test_task_that_is_tried_again_finds_what_was_sent",
    ],
    "`send` returns when a long message is in shared memory": [
        "unit/test_large_messages.py::test_sender_waits_for_a_receiver_that_does_not_receive",
        "unit/test_differences.py::test_long_message_is_sent_without_anybody_who_reads",
    ],
    "A pipe whose `fileno()` was asked for carries large messages through the descriptor": [
        "unit/test_large_messages.py::test_descriptor_that_others_may_read_carries_everything",
    ],
    "Descriptors that come from other processes are not inherited": [
        "unit/test_resource_sharer.py::test_second_fetch_is_an_error_and_nothing_is_left_open",
        "unit/test_resource_sharer.py::test_too_many_descriptors_are_closed",
    ],
    "A descriptor that a process shares is fetched within 20 s": [
        "unit/test_differences.py::test_descriptor_of_a_process_that_is_silent_is_an_error",
        "unit/test_resource_sharer.py::test_killed_sender_is_a_clear_error",
    ],
    "`reduction.recv_handle` closes all and raises `RuntimeError`": [
        "unit/test_resource_sharer.py::test_too_many_descriptors_are_closed",
    ],
    "A signal handler that sends on a connection in the middle of a send": [
        "unit/test_connection.py::test_signal_handler_cannot_send_within_a_message",
    ],
    "`Listener` and `Client` take `max_message`": [
        "unit/test_connection.py::test_message_longer_than_allowed_is_refused_before_memory_is_taken",
    ],
    "`Client(timeout=)` gives up a listener that is silent": [
        "unit/test_manager_storm.py::test_connecting_to_a_listener_that_is_silent_ends",
    ],
    "`Listener`, `Client` and managers take `tls=`": [
        "unit/test_tls.py::test_objects_of_every_size_come_and_go",
        "unit/test_tls.py::test_manager_over_tls_serves_every_process",
    ],
    # Locks and their kin
    "A lock whose owner was killed is taken over by the next": [
        "unit/test_synchronize.py::test_lock_of_a_killed_process_is_taken_over",
    ],
    '`Lock(on_owner_death="raise")` raises `OwnerDiedError`': [
        "unit/test_synchronize.py::test_lock_of_a_killed_process_raises_if_asked_to",
        "unit/test_differences.py::test_lock_that_raises_is_made_by_name",
    ],
    "A lock whose owner ended normally stays held": [
        "unit/test_synchronize.py::test_lock_of_a_process_that_has_ended_stays_held",
    ],
    "An `RLock` whose owner ended is taken over.": [
        "unit/test_synchronize.py::test_rlock_of_a_process_that_has_ended_is_taken_over",
    ],
    "A killed waiter blocks nobody.": [
        "unit/test_synchronize.py::test_killed_waiter_leaves_its_notification_to_the_next",
        "unit/test_queue.py::test_death_of_a_waiting_consumer_takes_nothing_with_it",
    ],
    "A killed waiter breaks a barrier.": [
        "unit/test_synchronize.py::test_killed_waiter_breaks_the_barrier",
    ],
    "A barrier is for at least one": [
        "unit/test_synchronize.py::test_barrier_is_for_somebody",
    ],
    "The lock of a condition is a `Lock` or an `RLock`": [
        "unit/test_synchronize.py::test_lock_of_a_condition_must_be_a_lock",
    ],
    "A permit of a semaphore belongs to nobody": [
        "unit/test_differences.py::test_permit_of_a_killed_process_stays_taken",
    ],
    "Locks, values and arrays can be passed on at any time": [
        "unit/test_synchronize.py::test_objects_travel_through_queues_and_pools",
        "unit/test_sharedctypes.py::test_objects_pass_through_a_queue",
        "unit/test_sharedctypes.py::test_object_is_passed_to_a_task",
    ],
    "A signal that arrives just before a wait, or in another thread, has its handler run": [
        "unit/test_signals.py::test_handler_runs_though_the_signal_interrupted_nothing",
    ],
    # Processes
    "A daemonic child dies with its parent": [
        "unit/test_process.py::test_daemon_dies_with_its_parent",
    ],
    "What cannot be pickled by name goes by value": [
        "unit/test_by_value.py::test_functions_as_tasks_of_a_pool",
        "unit/test_by_value.py::test_arguments_and_results_of_a_pool",
        "unit/test_by_value.py::test_function_as_target_and_argument",
    ],
    "A main module without its guard is one message": [
        "unit/test_main_guard.py::test_one_child_says_what_is_missing",
    ],
    "A forked child does not write once more what a thread of its parent has printed": [
        "unit/test_forks.py::test_child_does_not_write_what_another_thread_has_printed",
    ],
    "A forkserver child has imported the main module when it starts": [
        "unit/test_differences.py::test_forkserver_child_has_imported_the_main_module",
    ],
    "`interrupt()` of processes, `locked()` of locks and `track=` of `SharedMemory`": [
        "unit/test_differences.py::test_later_additions_are_there_in_every_version",
        "unit/test_synchronize.py::test_locked_says_whether_it_can_be_taken",
        "unit/test_shared_memory.py::test_untracked_name_stays",
    ],
    # Managers
    "A killed client of a manager leaves no references behind.": [
        "unit/test_managers.py::test_references_of_a_killed_client_are_dropped",
    ],
    "A lock of a manager that a killed client held is released": [
        "unit/test_managers.py::test_lock_of_a_killed_client_is_released",
    ],
    "Queues and semaphores of a manager hand nothing to a killed client.": [
        "unit/test_managers.py::test_nothing_is_handed_to_a_killed_client",
    ],
    "A `Lock` of a manager left by a process that ended properly stays held.": [
        "unit/test_differences.py::test_lock_of_a_client_that_ended_properly_stays_held",
    ],
    "A manager's process ends with the one that started it": [
        "unit/test_managers.py::test_server_ends_with_a_killed_parent",
    ],
    "A barrier of a manager that a killed client waits at breaks": [
        "unit/test_manager_storm.py::test_wait_of_a_killed_client_keeps_no_thread",
        "unit/test_differences.py::test_killed_process_breaks_a_managed_barrier",
    ],
    "When a manager's server dies, calls fail at once": [
        "unit/test_managers.py::test_calls_fail_at_once_when_the_server_is_killed",
    ],
    "Answers of a manager come from any of its threads": [
        "unit/test_differences.py::test_answers_of_a_manager_come_from_any_of_its_threads",
    ],
    "Managers take `max_clients`, `max_message` and `handshake_timeout`.": [
        "unit/test_manager_storm.py::test_more_clients_than_allowed_are_turned_away",
        "unit/test_manager_storm.py::test_request_that_is_too_long_ends_the_connection",
        "unit/test_manager_storm.py::test_silent_client_is_parted_with",
    ],
    "`start()` of a manager does not wait for its server": [
        "unit/test_manager_residents.py::test_manager_may_be_shut_down_before_its_server_answers",
        "unit/test_managers.py::test_server_that_dies_before_it_answers_is_told_of",
    ],
    "Without an address a manager listens at a name that is no file": [
        "unit/test_manager_residents.py::test_address_leaves_no_file",
        "unit/test_differences.py::test_log_of_a_manager_tells_of_no_directory",
    ],
    "Dictionaries, lists, queues, locks and their like of a manager are in shared memory": [
        "unit/test_managers.py::test_what_is_in_shared_memory_outlives_a_killed_server",
        "unit/test_manager_residents.py::test_proxies_look_like_those_of_a_server",
    ],
    "`_number_of_objects()` and `_debug_info()` tell of what the server holds": [
        "unit/test_differences.py::test_manager_tells_of_what_its_server_holds",
    ],
    "`iter()` of a managed dictionary gives a plain iterator": [
        "unit/test_differences.py::test_iterator_of_a_managed_dictionary_is_no_proxy",
        "unit/test_manager_residents.py::test_children_iterate_over_dictionaries",
    ],
    "`update`, `extend` and the assignment of a slice are all or nothing": [
        "unit/test_differences.py::test_argument_that_cannot_be_read_changes_nothing",
        "unit/test_arena_containers.py::test_update_is_all_or_nothing",
        "unit/test_arena_containers.py::test_update_and_extend_are_seen_whole",
    ],
    "`join()` of a managed queue raises `TasksLostError`": [
        "unit/test_differences.py::test_join_of_a_managed_queue_tells_of_a_killed_consumer",
    ],
    "A managed dictionary or list that contains itself stays until the program ends.": [
        "unit/test_differences.py::test_container_that_contains_itself_stays",
    ],
    # Shared memory
    "Attaching to a named `SharedMemory` never makes it go.": [
        "unit/test_shared_memory.py::test_attaching_never_unlinks",
    ],
    "No helper process tracks names.": [
        "unit/test_shared_memory.py::test_no_helper_process_is_started",
    ],
    "A name goes with the tree that made it": [
        "unit/test_shared_memory.py::test_end_of_the_first_process_unlinks",
    ],
    "A name of a tree that was killed": [
        "unit/test_shared_memory.py::test_name_of_a_killed_program_goes_with_the_next_use",
    ],
    "`SharedMemory.close()` does not mind views": [
        "unit/test_shared_memory.py::test_close_leaves_the_memory_to_its_views",
    ],
    "A `ShareableList` keeps trailing zero bytes, and texts of any characters.": [
        "unit/test_shared_memory.py::test_items_that_the_original_damages_are_kept",
    ],
    "Memory that holds no list, and a list that is closed or damaged, raise `ValueError`.": [
        "unit/test_shared_memory.py::test_memory_that_holds_no_list_is_refused",
        "unit/test_shared_memory.py::test_closed_list_says_so",
        "unit/test_shared_memory.py::test_damaged_item_is_an_error",
    ],
    "Nothing else is in `/dev/shm`": [
        "unit/test_differences.py::test_nothing_but_named_memory_is_in_dev_shm",
    ],
    "Shared memory has a limit": [
        "unit/test_differences.py::test_limit_is_half_of_what_there_is",
    ],
    "`PROCESSION_ARENA_MAX=8G` sets another limit.": [
        "unit/test_differences.py::test_another_limit_can_be_set",
    ],
}


def test_every_line_of_the_page_has_tests():
    lines = re.findall(r"^- (?:\*\*(.+?)\*\*)?", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    titles = [" ".join(words.split()) for words in lines]
    assert len(titles) == len(set(titles))
    assert set(titles) == set(TESTS)


def _tests_in(file):
    """The tests of a file that are always run, as its text has them."""
    for part in ast.parse(file.read_text()).body:
        if isinstance(part, ast.FunctionDef) and part.name.startswith("test_"):
            marks = "".join(ast.unparse(decorator) for decorator in part.decorator_list)
            if not re.search(r"\b(skip|xfail|soak)", marks):
                yield part.name


def test_tests_of_the_table_are_there():
    named = {tuple(name.split("::")) for names in TESTS.values() for name in names}
    for file in sorted({file for file, _ in named}):
        wanted = {test for where, test in named if where == file}
        missing = wanted - set(_tests_in(ROOT / "tests" / file))
        assert not missing, f"not in tests/{file}"


def environment(**variables):
    search_path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": search_path, **variables}


def printed_by(program, *arguments, **variables):
    """What a program of its own prints, run as a script."""
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLOCK,
        check=True,
    )
    return done.stdout


def square(number):
    return number * number


class Unreadable:
    """Is pickled, and cannot be brought back."""

    def __reduce__(self):
        return int, ("no number",)


def test_closed_queue_tells_whether_it_is_empty(ctx):
    queue = ctx.Queue()
    queue.put(1)
    queue.close()
    queue.join_thread()
    assert not queue.empty()


def double(numbers, doubled):
    doubled.put(2 * numbers.get())


@pytest.mark.parametrize("made_for", ["fork", "spawn", "forkserver"])
def test_queue_is_for_children_of_every_method(ctx, made_for):
    other = procession.get_context(made_for)
    numbers, doubled = other.Queue(), other.Queue()
    child = ctx.Process(target=double, args=(numbers, doubled))
    child.start()
    numbers.put(4)
    assert doubled.get(timeout=DEADLOCK) == 8
    child.join(DEADLOCK)
    child.close()


def test_calls_of_a_terminated_pool_fail(make_pool):
    pool = make_pool(1)
    begun = procession.Event()
    calls = [pool.apply_async(begin_and_wait, (begun, procession.Event())) for _ in range(2)]
    assert begun.wait(DEADLOCK)
    pool.terminate()
    for call in calls:
        with pytest.raises(procession.ProcessError, match="terminated"):
            call.get(DEADLOCK)


def fail_in_turn(number, failed):
    if number == 0:
        failed.wait(DEADLOCK)
    else:
        failed.set()
    raise ValueError(f"item {number}")


def test_map_raises_the_failure_of_the_first_item_in_order(make_pool):
    failed = procession.Event()
    with pytest.raises(ValueError, match="item 0"):
        make_pool(2).starmap(fail_in_turn, [(0, failed), (1, failed)], 1)


def note_begin(begun, _):
    begun.set()


class PickledLate:
    """Is not pickled before the event is set."""

    def __init__(self, event):
        self.event = event

    def __reduce__(self):
        assert self.event.wait(DEADLOCK), "no task has begun"
        return int, ()


def test_map_of_much_begins_before_all_is_pickled(make_pool):
    begun = procession.Event()
    items = [(begun, grid()) for _ in range(8)]
    assert make_pool(1).starmap(note_begin, [*items, (begun, PickledLate(begun))], 1) == [None] * 9


def start_a_child():
    child = procession.Process(target=signal.pause)
    child.start()
    return child.pid


def test_child_of_a_worker_ends_with_it(make_pool):
    pool = make_pool(1)
    for _ in range(2):
        child = pool.apply(start_a_child)
        assert is_running(child)
        (worker,) = pool.stats()["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        assert comes_true(lambda child=child: not is_running(child))


def raise_instance(kind):
    raise kind("raised")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_task_that_raises_what_ends_programs_is_a_failed_task(make_pool, kind):
    pool = make_pool(1)
    pid = pool.apply(os.getpid)
    with pytest.raises(kind, match="raised"):
        pool.apply_async(raise_instance, (kind,)).get(DEADLOCK)
    assert pool.apply(os.getpid) == pid


def test_result_that_cannot_be_unpickled_fails_its_task_alone(make_pool):
    pool = make_pool(1)
    with pytest.raises(ValueError, match="no number"):
        pool.apply_async(Unreadable).get(DEADLOCK)
    assert pool.apply(square, (3,)) == 9


def test_callback_that_raises_is_reported(make_pool, monkeypatch):
    reported, told = [], threading.Event()

    def report(unraisable):
        reported.append(str(unraisable.exc_value))
        told.set()

    def refuse(_):
        raise RuntimeError("refused")

    monkeypatch.setattr(sys, "unraisablehook", report)
    assert make_pool(1).apply_async(square, (2,), callback=refuse).get(DEADLOCK) == 4
    assert told.wait(DEADLOCK)
    assert reported == ["refused"]


def test_what_an_executor_cannot_unpickle_fails_its_own_call(ctx):
    with ProcessPoolExecutor(1, ctx) as executor:
        for call in (executor.submit(square, Unreadable()), executor.submit(Unreadable)):
            with pytest.raises(ValueError, match="no number"):
                call.result(DEADLOCK)
        assert executor.submit(square, 3).result(DEADLOCK) == 9


def test_executor_starts_all_its_workers_with_the_first_call(ctx):
    with ProcessPoolExecutor(3, ctx) as executor:
        assert executor.submit(square, 3).result(DEADLOCK) == 9
        assert len(executor._processes) == 3


def test_shutdown_cancels_every_call_that_was_not_begun(ctx):
    begun, go = ctx.Event(), ctx.Event()
    executor = ProcessPoolExecutor(1, ctx)
    first = executor.submit(begin_and_wait, begun, go)
    others = [executor.submit(square, number) for number in range(5)]
    assert begun.wait(DEADLOCK)
    executor.shutdown(wait=False, cancel_futures=True)
    go.set()
    for other in others:
        with pytest.raises(CancelledError):
            other.result(DEADLOCK)
    assert first.result(DEADLOCK) == "done"
    for worker in procession.active_children():
        worker.join(DEADLOCK)


def begin_and_wait(begun, go):
    begun.set()
    go.wait(DEADLOCK)
    return "done"


def test_lock_travels_through_a_pipe():
    here, there = procession.Pipe()
    lock = procession.Lock()
    with here, there, lock:
        here.send({"the lock": lock})
        received = there.recv()["the lock"]
        assert received.locked()
    assert received.acquire(timeout=DEADLOCK)


def write_and_look(view, written, looked):
    view[0] = 7
    written.set()
    looked.wait(DEADLOCK)
    os._exit(view[1])


def test_forked_processes_have_the_same_view():
    ctx = procession.get_context("fork")
    queue, written, looked = ctx.Queue(), ctx.Event(), ctx.Event()
    queue.put(grid(fill=1))
    received = queue.get(timeout=DEADLOCK)
    view = received.view()
    child = ctx.Process(target=write_and_look, args=(view, written, looked))
    child.start()
    assert written.wait(DEADLOCK)
    assert view[0] == 7
    view[1] = 9
    looked.set()
    child.join(DEADLOCK)
    assert child.exitcode == 9
    child.close()


def test_long_message_is_sent_without_anybody_who_reads():
    here, there = procession.Pipe()
    with here, there:
        for fill in range(8):
            here.send(grid(fill=fill))
        assert [there.recv().view()[LARGE - 1] for _ in range(8)] == list(range(8))


def test_descriptor_of_a_process_that_is_silent_is_an_error():
    assert resource_sharer._PATIENCE == 20.0
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("\0" + os.urandom(8).hex())
        silent.listen()
        with pytest.raises(TimeoutError):
            _procession.redeem(silent.getsockname(), b"a key", b"", 0.05)


def test_lock_that_raises_is_made_by_name(ctx):
    for lock in (ctx.Lock(on_owner_death="raise"), procession.RLock(on_owner_death="raise")):
        child = ctx.Process(target=take_and_die, args=(lock,))
        child.start()
        child.join(DEADLOCK)
        with pytest.raises(procession.OwnerDiedError):
            lock.acquire()
        child.close()


def take_and_die(lock):
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def test_permit_of_a_killed_process_stays_taken(ctx):
    semaphore = ctx.Semaphore(2)
    child = ctx.Process(target=take_and_die, args=(semaphore,))
    child.start()
    child.join(DEADLOCK)
    assert semaphore.get_value() == 1
    assert semaphore.acquire(timeout=DEADLOCK)
    assert not semaphore.acquire(timeout=0.2)
    semaphore.release()
    assert semaphore.acquire(timeout=DEADLOCK)
    child.close()


FORK_SERVER = """
import os
import procession

IMPORTED_BY = os.getpid()

def tell(queue):
    queue.put((IMPORTED_BY, os.getpid(), os.getppid()))

if __name__ == "__main__":
    ctx = procession.get_context("forkserver")
    queue = ctx.Queue()
    child = ctx.Process(target=tell, args=(queue,))
    child.start()
    print(*queue.get(), os.getpid())
    child.join()
"""


def test_forkserver_child_has_imported_the_main_module(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(FORK_SERVER)
    imported_by, child, fork_server, first = printed_by(script).split()
    assert imported_by == fork_server
    assert len({child, fork_server, first}) == 3


def test_later_additions_are_there_in_every_version(ctx):
    started = ctx.Event()
    child = ctx.Process(target=wait_for_interrupt, args=(started,))
    child.start()
    assert started.wait(DEADLOCK)
    child.interrupt()
    child.join(DEADLOCK)
    assert child.exitcode == 5
    child.close()
    for made in (ctx.Lock(), ctx.RLock(), ctx.Semaphore()):
        assert not made.locked()
    memory = procession.shared_memory.SharedMemory(create=True, size=1, track=False)
    memory.close()
    memory.unlink()


def wait_for_interrupt(started):
    try:
        started.set()
        signal.pause()
    except KeyboardInterrupt:
        os._exit(5)


def take(lock):
    lock.acquire()


def test_lock_of_a_client_that_ended_properly_stays_held(ctx):
    with ctx.Manager() as manager:
        lock = manager.Lock()
        child = ctx.Process(target=take, args=(lock,))
        child.start()
        child.join(DEADLOCK)
        assert not lock.acquire(True, 0.2)
        lock.release()
        assert lock.acquire(True, DEADLOCK)
        child.close()


class Room:
    """Says which thread of the server is in it; others can stay there."""

    def __init__(self):
        self.entered, self.leave = threading.Semaphore(0), threading.Event()

    def thread(self):
        return threading.get_ident()

    def stay(self):
        self.entered.release()
        self.leave.wait(DEADLOCK)

    def wait_for_guest(self):
        return self.entered.acquire(timeout=DEADLOCK)

    def let_go(self):
        self.leave.set()


class RoomManager(managers.BaseManager):
    pass


RoomManager.register("Room", Room)


def test_answers_of_a_manager_come_from_any_of_its_threads():
    """One thread here is answered by another than before once that one has a call that blocks."""
    with RoomManager(ctx=procession.get_context("fork")) as manager:
        room, guests = manager.Room(), []
        answered_by = {room.thread()}
        while len(answered_by) == 1 and len(guests) < 20:
            guests.append(threading.Thread(target=room.stay))
            guests[-1].start()
            assert room.wait_for_guest()
            answered_by.add(room.thread())
        room.let_go()
        for guest in guests:
            guest.join(DEADLOCK)
        assert len(answered_by) > 1


LOGS_A_MANAGER = """
import logging
import sys
import procession

if __name__ == "__main__":
    procession.log_to_stderr(logging.INFO)
    with procession.get_context(sys.argv[1]).Manager() as manager:
        assert manager._number_of_objects() == 0
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_log_of_a_manager_tells_of_no_directory(tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(LOGS_A_MANAGER)
    done = subprocess.run(
        [sys.executable, str(script), method],
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLOCK,
        check=True,
    )
    assert re.search(r"INFO/SyncManager-1\] manager serving at '\\x00procession-", done.stderr)
    assert "temp directory" not in done.stderr


def test_killed_process_breaks_a_managed_barrier(ctx):
    with ctx.Manager() as manager:
        barrier = manager.Barrier(3)
        child = ctx.Process(target=barrier.wait)
        child.start()
        assert comes_true(lambda: barrier.n_waiting == 1)
        child.kill()
        child.join(DEADLOCK)
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(DEADLOCK)
        child.close()


def test_manager_tells_of_what_its_server_holds(ctx):
    with ctx.Manager() as manager:
        kept = [manager.dict(), manager.Queue(), manager.Lock(), manager.Array("i", [1, 2])]
        assert len(kept) == 4
        assert manager._number_of_objects() == 1
        held = manager._debug_info()
        assert held.count("refcount=") == 1
        assert "[1, 2]" in held


def test_iterator_of_a_managed_dictionary_is_no_proxy(ctx):
    with ctx.Manager() as manager:
        iterator = iter(manager.dict(a=1, b=2))
        assert not isinstance(iterator, managers.BaseProxy)
        assert list(iterator) == ["a", "b"]


class Unending:
    """Gives a pair and fails then."""

    def __iter__(self):
        yield "a", 2
        raise ZeroDivisionError


def test_argument_that_cannot_be_read_changes_nothing(ctx):
    with ctx.Manager() as manager:
        shelf, numbers = manager.dict(a=1), manager.list([1, 2, 3])
        for call, arguments in (
            (shelf.update, (Unending(),)),
            (numbers.extend, (Unending(),)),
            (numbers.__setitem__, (slice(1, 2), Unending())),
        ):
            with pytest.raises(ZeroDivisionError):
                call(*arguments)
        with pytest.raises(TypeError):
            shelf.update([("a", 2), 5])
        assert shelf.copy() == {"a": 1}
        assert numbers[:] == [1, 2, 3]


def get_and_die(queue):
    queue.get()
    os.kill(os.getpid(), signal.SIGKILL)


def test_join_of_a_managed_queue_tells_of_a_killed_consumer(ctx):
    with ctx.Manager() as manager:
        for queue in (manager.Queue(), manager.JoinableQueue()):
            queue.put("task")
            child = ctx.Process(target=get_and_die, args=(queue,))
            child.start()
            child.join(DEADLOCK)
            with pytest.raises(procession.TasksLostError, match=f"process {child.pid} died"):
                queue.join()
            queue.join()
            child.close()


IN_ITSELF = """
import os
import pathlib
import sys
import procession

def arena_size():
    for path in pathlib.Path("/proc/self/fd").iterdir():
        try:
            if os.readlink(path).startswith("/memfd:procession-arena"):
                return path.stat().st_blocks * 512
        except FileNotFoundError:
            continue  # the one that lists the folder

def make(manager, in_itself):
    for _ in range(400):
        if sys.argv[1] == "dict":
            made = manager.dict(filler=bytes(1000))
            put = made.update, {"itself": made}
        else:
            made = manager.list([bytes(1000)])
            put = made.append, made
        if in_itself:
            put[0](put[1])

if __name__ == "__main__":
    with procession.get_context("fork").Manager() as manager:
        sizes = []
        for in_itself in (False, False, True):
            make(manager, in_itself)
            sizes.append(arena_size())
    print(*sizes)
"""


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_container_that_contains_itself_stays(tmp_path, kind):
    """In a program of its own, whose memory has no room that was needed before."""
    script = tmp_path / "program.py"
    script.write_text(IN_ITSELF)
    first, second, third = map(int, printed_by(script, kind).split())
    assert second - first < 400_000, "others go with their last proxy"
    assert third - second > 400_000


IN_DEV_SHM = """
import os
import pathlib
import procession

if __name__ == "__main__":
    made = [procession.Queue(), procession.Lock(), procession.Event(), procession.Barrier(2)]
    made += [procession.Array("i", 10_000), procession.Value("d"), procession.Pipe()]
    with procession.Pool(1) as pool, procession.Manager() as manager:
        made[0].put(bytes(1_000_000))
        pool.map(len, ["a"])
        made.append(manager.dict())
        for own in [os.getpid(), *(child.pid for child in procession.active_children())]:
            maps = pathlib.Path(f"/proc/{own}/maps").read_text()
            assert "/memfd:procession-arena" in maps
            assert "/dev/shm" not in maps
            for descriptor in list(pathlib.Path(f"/proc/{own}/fd").iterdir()):
                try:
                    assert "/dev/shm" not in os.readlink(descriptor), descriptor
                except FileNotFoundError:
                    pass  # the one that listed the folder
    print("nothing")
"""


def test_nothing_but_named_memory_is_in_dev_shm(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(IN_DEV_SHM)
    assert printed_by(script) == "nothing\n"


LIMIT = """
import procession

try:
    procession.RawArray("b", 1 << 48)
except MemoryError as error:
    print(error)
queue = procession.Queue()
if LITTLE:
    try:
        while True:
            queue.put(bytes(1 << 20))
    except MemoryError:
        print(queue.qsize())
"""


def limit_told_by(tmp_path, little, **variables):
    script = tmp_path / "program.py"
    script.write_text(f"LITTLE = {little}\n{LIMIT}")
    first, *rest = printed_by(script, **variables).splitlines()
    return int(re.search(r"of (\d+) bytes", first)[1]), rest


def test_limit_is_half_of_what_there_is(tmp_path, monkeypatch):
    monkeypatch.delenv("PROCESSION_ARENA_MAX", raising=False)
    limit, _ = limit_told_by(tmp_path, little=False)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < limit <= memory // 2


def test_another_limit_can_be_set(tmp_path):
    limit, (queued,) = limit_told_by(tmp_path, little=True, PROCESSION_ARENA_MAX="64M")
    assert limit == 64 << 20
    assert 0 < int(queued) < 64
