//! The command `logdag`: checks configurations, shows their graph, and logs lines from pipes,
//! sockets and other programs.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod ctl;
mod inputs;
mod man;
mod notify;
mod show;
mod signals;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser};
use jlog_watch::Server;
use logdag::config::{Config, ConfigError};
use logdag::{FileSink, Graph, SinkSpec};
use parking_lot::{Condvar, Mutex};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Signals, SignalsInfo};
use signal_hook::low_level::siginfo::Cause;

use args::{Args, HttpArgs, LineArgs, Source, Switches, Task, http_address};
use inputs::{Lines, Stop, Until, spawn, start};
use show::{Shape, decode, show};
use signals::{EndAtOnce, Heeded, signals_of_exec, signals_of_run};

/// An error, with the text that is reported.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    // Signals come before anything else: an early one would end the process.
    match Heeded::by_the_command().and_then(|heeded| work(Args::parse().command, heeded)) {
        Ok(code) => code,
        Err(e) => {
            report(format_args!("logdag: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn work(task: Task, heeded: Heeded) -> Result<ExitCode, Failure> {
    match task {
        Task::Check { file, strict, types } => check(&file, strict, &types),
        Task::Graph { file, dot, json } => {
            let shape = if dot {
                Shape::Dot
            } else if json {
                Shape::Json
            } else {
                Shape::Text
            };
            let text = show(&Config::from_file(&file)?, shape)?;
            // A reader that has closed the pipe is not an error.
            let _ = io::stdout().write_all(text.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Task::Decode { files } => decode(&files),
        Task::Ctl(args) => ctl::ctl(&args),
        Task::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "logdag", &mut script);
            // A reader that has closed the pipe is not an error.
            let _ = io::stdout().write_all(&script);
            Ok(ExitCode::SUCCESS)
        }
        Task::Man { directory } => {
            man::write(&directory)
                .map_err(|e| format!("cannot write man pages to {}: {e}", directory.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Run { file, inputs, lines, http } => {
            lines.check(inputs.iter().any(|(_, source)| source.is_syslog()));
            let signals = match heeded {
                Heeded::Run(signals) => signals,
                _ => signals_of_run()?,
            };
            run(signals, &file, inputs, &lines, &http)
        }
        Task::Exec { file, stdout, stderr, lines, http, command } => {
            lines.check(false);
            let signals = match heeded {
                Heeded::Exec(end_at_once, signals) => (end_at_once, signals),
                _ => signals_of_exec()?,
            };
            exec(signals, &file, (stdout, stderr), &lines, &http, &command)
        }
    }
}

/// Reports files beside a log that look like rotated ones, but will never be removed.
fn note_what_retention_leaves(stream: &str, sink: Option<&SinkSpec>) {
    let Some(sink) = sink.filter(|sink| matches!(&*sink.kind, "file" | "file_synch")) else { return };
    if !sink.rotation.retains() {
        return;
    }
    // Opening the file will report a directory that cannot be read.
    for path in FileSink::left_alone(Path::new(&sink.path), &sink.rotation).unwrap_or_default() {
        let path = path.display();
        println!("note: log {stream:?}: retention leaves {path} alone: this rotation did not create it");
    }
}

fn check(file: &Path, strict: bool, types: &[String]) -> Result<ExitCode, Failure> {
    let config = Config::from_file(file)?;
    let graph = Graph::new();
    for kind in types {
        graph.register(kind, |_| Err(io::ErrorKind::Unsupported.into()))?;
    }
    config.check_types(&graph)?;
    if let Some(http) = config.http() {
        http_address(&config, http)?;
    }
    let missing = config.missing();
    let mut warnings = 0_u64;
    for warning in config.warnings().iter().chain(&missing) {
        warn(warning);
        warnings += 1;
    }
    let found = if warnings == 0 { "no problems".to_owned() } else { counted(warnings, "warning") };
    println!("{}: {}, {found}", file.display(), counted(config.streams().len() as u64, "stream"));
    for stream in config.streams() {
        note_what_retention_leaves(&stream.name, stream.options.sink.as_ref());
    }
    Ok(if strict && warnings > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints to standard error, but does not wait for a reader that has stopped.
fn report(what: std::fmt::Arguments<'_>) {
    logdag::report_on_stderr(&format!("{what}\n"));
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn warn(warning: &ConfigError) {
    report(format_args!("logdag: warning: {warning}"));
}

fn open(
    file: &Path,
    inputs: &[&str],
    switches: &Switches,
    http: &HttpArgs,
) -> Result<(Graph, Option<Server>), Failure> {
    let mut config = Config::from_file(file)?;
    switches.change(&mut config);
    let graph = Graph::new();
    config.warnings().iter().for_each(warn);
    // The command registers no type later.
    config.check_types(&graph)?;
    config.apply(&graph)?;
    switches.check(&graph, inputs);
    switches.apply(&graph)?;
    graph.go_async();
    let (again, configuration, all) = (graph.clone(), file.to_owned(), switches.clone());
    let server = http.serve(&config, &graph, move || reload(&again, &configuration, &all))?;
    Ok((graph, server))
}

/// Reloads the configuration and reopens files. Errors go to the log, too.
fn reload(graph: &Graph, file: &Path, switches: &Switches) -> Result<(), String> {
    notify::reloading();
    let reloaded = graph.reload_with(file, |config| switches.change(config)).map_err(|e| e.to_string());
    if reloaded.is_ok()
        && let Err(e) = switches.apply(graph)
    {
        report(format_args!("logdag: {e}"));
    }
    match &reloaded {
        Ok(()) => notify::ready("The configuration was reloaded"),
        Err(e) => {
            notify::ready(&format!("The configuration was refused, and the previous one stays in use: {e}"))
        }
    }
    reloaded
}

/// Whether the terminal has sent a signal (Ctrl-C, a new size) to the command as well, because it
/// goes to our whole process group. A hangup goes only to the leader of the session, which may be
/// us.
fn has_it_too(command: nix::unistd::Pid, signal: i32) -> bool {
    matches!(signal, SIGINT | SIGQUIT | SIGWINCH)
        && nix::unistd::getpgid(Some(command)).is_ok_and(|group| group == nix::unistd::getpgrp())
}

fn run(
    mut signals: Signals,
    file: &Path,
    inputs: Vec<(String, Source)>,
    args: &LineArgs,
    http: &HttpArgs,
) -> Result<ExitCode, Failure> {
    // The server answers until everything is written.
    let names: Vec<&str> = inputs.iter().map(|(stream, _)| &**stream).collect();
    let (graph, _server) = open(file, &names, &args.switches, http)?;
    let (stop, ending) = Stop::new()?;
    let mut threads = Vec::new();
    let what = format!("Logging lines from {}", counted(inputs.len() as u64, "input"));
    for (stream, source) in inputs {
        let lines = Lines::new(&graph, &stream, args)?;
        threads.push(start(source, lines, stop.clone())?);
    }
    // The command ends when all inputs have ended; sockets never end.
    notify::ping(&graph)?;
    notify::ready(&what);
    let handle = signals.handle();
    let inputs = spawn(move || {
        for thread in threads {
            // The thread has reported its error.
            let _ = thread.join();
        }
        handle.close();
    })?;
    // On a separate thread, so that a sink that a reload waits for does not delay the end.
    let reloads = Reloads::start(&graph, file, &args.switches)?;
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        reloads.reload();
    }
    notify::notify(&[NotifyState::Stopping]);
    // Lines that were sent before the end are still taken.
    drop(ending);
    let begun = Instant::now();
    while !inputs.is_finished() && begun.elapsed() < LAST_LINES {
        std::thread::sleep(Duration::from_millis(5));
    }
    let finished = finish(&graph);
    reloads.finish(begun + LAST_LINES);
    finished
}

/// Reloads the configuration on request, one reload at a time.
struct Reloads {
    asked: mpsc::SyncSender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Reloads {
    fn start(graph: &Graph, file: &Path, switches: &Switches) -> Result<Self, Failure> {
        // Requests that arrive during a reload are merged into one.
        let (asked, reloads) = mpsc::sync_channel(1);
        let (graph, file, switches) = (graph.clone(), file.to_owned(), switches.clone());
        let thread = spawn(move || {
            for () in reloads {
                // The log has the error.
                let _ = reload(&graph, &file, &switches);
            }
        })?;
        Ok(Self { asked, thread })
    }

    fn reload(&self) {
        let _ = self.asked.try_send(());
    }

    /// Waits for a reload in progress: it may still report which lines a sink has not taken.
    fn finish(self, deadline: Instant) {
        drop(self.asked);
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How long the command takes lines that were sent before it was told to stop.
const LAST_LINES: Duration = Duration::from_secs(5);

/// How long the command takes what other processes wrote to its pipes before it was told to stop.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// How a command has ended, once that is known.
#[derive(Default)]
struct Fate {
    status: Mutex<Option<ExitStatus>>,
    known: Condvar,
}

impl Fate {
    fn is(&self, status: ExitStatus) {
        *self.status.lock() = Some(status);
        self.known.notify_all();
    }

    /// What has cut the last line of the command's output, which has no line end; `None` if the
    /// command itself ended it like this.
    fn cut_by(&self) -> Option<String> {
        let mut status = self.status.lock();
        // A pipe ends just before the command does, unless the command has closed it.
        self.known.wait_while_for(&mut status, |status| status.is_none(), LAST_LINES);
        let status = (*status)?;
        if let Some(number) = status.signal() {
            let name = nix::sys::signal::Signal::try_from(number);
            let name = name.map_or_else(|_| format!("signal {number}"), |signal| signal.to_string());
            return Some(format!("the command was killed by {name}"));
        }
        // A shell reports this if a signal killed the command that it ran.
        let code = status.code().filter(|code| (129..=128 + 64).contains(code))?;
        Some(format!("the command ended with status {code}"))
    }
}

/// Writes all lines that were taken.
fn finish(graph: &Graph) -> Result<ExitCode, Failure> {
    let drained = graph.drain_at_end();
    graph.go_sync();
    graph.flush()?;
    drop(drained);
    let lost: u64 =
        graph.names().iter().filter_map(|name| graph.describe(name)).map(|d| d.counters.failed).sum();
    if lost > 0 {
        return Err(format!("{} could not be written", counted(lost, "line")).into());
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(
    (end_at_once, mut signals): (EndAtOnce, SignalsInfo<WithOrigin>),
    file: &Path,
    (stdout, stderr): (Option<String>, Option<String>),
    args: &LineArgs,
    http: &HttpArgs,
    command: &[std::ffi::OsString],
) -> Result<ExitCode, Failure> {
    let Some((program, arguments)) = command.split_first() else { return Ok(ExitCode::SUCCESS) };
    // The server answers until everything is written.
    let names: Vec<&str> = stdout.iter().chain(&stderr).map(String::as_str).collect();
    let (graph, _server) = open(file, &names, &args.switches, http)?;
    let out = stdout.map(|stream| Lines::new(&graph, &stream, args)).transpose()?;
    let err = stderr.map(|stream| Lines::new(&graph, &stream, args)).transpose()?;
    let pipe = |lines: &Option<Lines>| if lines.is_some() { Stdio::piped() } else { Stdio::inherit() };
    // On a separate thread, so that a sink that a reload waits for does not delay signals.
    let reloads = Reloads::start(&graph, file, &args.switches)?;
    notify::ping(&graph)?;
    let (stop, ending) = Stop::new()?;
    let spawned = Command::new(program).args(arguments).stdout(pipe(&out)).stderr(pipe(&err)).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => {
            report(format_args!("logdag: cannot run {}: {e}", Path::new(program).display()));
            reloads.finish(Instant::now() + LAST_LINES);
            // The same exit codes as in shells.
            return Ok(ExitCode::from(if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 }));
        }
    };
    let pid = i32::try_from(child.id()).map(nix::unistd::Pid::from_raw)?;
    notify::ready(&format!("Runs {}", Path::new(program).display()));
    let handle = signals.handle();
    let (gone, asked_to_end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_gone, asked) = (Arc::clone(&gone), Arc::clone(&asked_to_end));
    // The command was told to stop, and so were we.
    let stopped_before = Arc::new(AtomicBool::new(false));
    let before = Arc::clone(&stopped_before);
    // A command whose signals or output nobody takes must not go on.
    let end = |child: &mut std::process::Child, e: Failure| {
        gone.store(true, Ordering::Release);
        let _ = child.kill();
        let _ = child.wait();
        e
    };
    let forwarding = spawn(move || {
        for origin in signals.forever() {
            let signal = origin.signal;
            if is_gone.load(Ordering::Acquire) {
                if matches!(signal, SIGTERM | SIGINT | SIGQUIT) {
                    asked.store(true, Ordering::Release);
                }
                continue;
            }
            if signal == SIGHUP {
                reloads.reload();
            }
            if matches!(signal, SIGTERM | SIGINT) {
                before.store(true, Ordering::Release);
            }
            if !(origin.cause == Cause::Kernel && has_it_too(pid, signal))
                && let Ok(signal) = nix::sys::signal::Signal::try_from(signal)
            {
                // The command may have ended just now.
                let _ = nix::sys::signal::kill(pid, signal);
            }
        }
        reloads
    })
    .map_err(|e| end(&mut child, e))?;
    let mut taking = Vec::new();
    let fate = Arc::new(Fate::default());
    let outputs =
        [(out, child.stdout.take().map(OwnedFd::from)), (err, child.stderr.take().map(OwnedFd::from))];
    for (lines, pipe) in outputs {
        let (Some(lines), Some(pipe)) = (lines, pipe) else { continue };
        let (pipe, fate) = (Until::new(File::from(pipe), stop.clone()), Arc::clone(&fate));
        let take = move || lines.take_output(pipe, || fate.cut_by());
        taking.push(spawn(take).map_err(|e| end(&mut child, e))?);
    }
    drop(stop);
    let status = child.wait()?;
    fate.is(status);
    // The id of an ended process may be reused: from here on, signals are for us.
    gone.store(true, Ordering::Release);
    notify::notify(&[NotifyState::Stopping]);
    end_at_once.count_from_here()?;
    let ended = Instant::now();
    // The pipes end when every process that has them open ends, or when a signal ends the wait. If
    // a signal ended the command, the wait ends after a while, because a sink may be stuck.
    let waits = || {
        let over = stopped_before.load(Ordering::Acquire) && ended.elapsed() >= LAST_LINES;
        !over && !asked_to_end.load(Ordering::Acquire)
    };
    let all_taken = || taking.iter().all(std::thread::JoinHandle::is_finished);
    while !all_taken() && waits() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // What has come until now is still taken.
    drop(ending);
    let stopped = Instant::now();
    while !all_taken() && stopped.elapsed() < LAST_BYTES {
        std::thread::sleep(Duration::from_millis(5));
    }
    for thread in taking {
        if thread.is_finished()
            && let Ok(Err(e)) = thread.join()
        {
            report(format_args!("logdag: {e}"));
        }
    }
    handle.close();
    let reloads = forwarding.join();
    if let Err(e) = finish(&graph) {
        // Callers expect the command's own status.
        report(format_args!("logdag: {e}"));
    }
    if let Ok(reloads) = reloads {
        reloads.finish(ended + LAST_LINES);
    }
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
