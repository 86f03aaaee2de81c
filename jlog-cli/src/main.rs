//! The `jlog` command. If it is called as `jlogctl` or `jlogtail`, it takes the C tools' options.

mod admin;
mod args;
mod check;
mod compat;
mod demo;
mod error;
#[cfg(feature = "ship")]
mod exec;
mod grep;
mod man;
mod monitor;
mod output;
mod read;
mod seek;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "ship")]
mod ship;
#[cfg(feature = "ship")]
mod ship_config;
#[cfg(all(feature = "ship", feature = "serve"))]
mod ship_metrics;
mod stop;
mod time;
#[cfg(feature = "top")]
mod top;
mod transfer;
mod values;
#[cfg(feature = "ship")]
mod work;
mod write;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Args, Command};
use crate::error::{Failure, Outcome};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name).map(|n| n.to_string_lossy());
    let outcome = match name.as_deref() {
        Some("jlogctl") => compat::jlogctl::run(&arguments),
        Some("jlogtail") => compat::jlogtail::run(&arguments),
        _ => match Args::try_parse_from(&arguments) {
            Ok(args) => run(args),
            Err(e) => {
                // If this fails, there is nowhere to report it.
                let _ = e.print();
                let wrong = e.use_stderr();
                // Monitoring systems take 2 for a critical state.
                let checks = arguments.get(1).is_some_and(|command| command == "check");
                return match wrong {
                    true if checks => ExitCode::from(monitor::UNKNOWN),
                    true => ExitCode::from(error::USAGE),
                    false => ExitCode::SUCCESS,
                };
            }
        },
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(args: Args) -> Outcome {
    match args.command {
        Command::Create(args) => admin::create(&args),
        Command::Write(args) => write::run(&args),
        Command::Subscribe(args) => admin::subscribe(&args),
        Command::Unsubscribe(args) => admin::unsubscribe(&args),
        Command::Seek(args) => seek::seek(&args),
        Command::Read(args) => read::run(&args),
        Command::Cat(args) => read::cat(&args),
        Command::Grep(args) => grep::grep(&args).map_err(|failure| failure.with_code(grep::FAILED)),
        Command::Tail(args) => read::tail(&args),
        Command::Status(args) => admin::status(&args),
        Command::Check(args) => monitor::check(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::serve(&args),
        #[cfg(feature = "top")]
        Command::Top(args) => top::top(&args),
        #[cfg(feature = "ship")]
        Command::Work(args) => work::run(*args),
        #[cfg(feature = "ship")]
        Command::Ship(args) => ship::run(&args),
        Command::Inspect(args) => admin::inspect(&args),
        Command::Verify(args) => check::verify(&args),
        Command::Repair(args) => check::repair(&args),
        Command::Clean(args) => admin::clean(&args),
        Command::Backup(args) => admin::backup(&args),
        Command::Export(args) => transfer::export(&args),
        Command::Import(args) => transfer::import(&args),
        Command::Alter(args) => admin::alter(&args),
        Command::Meta(args) => admin::meta(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "jlog", &mut out);
            output::print(&out)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { directory } => {
            man::write(&directory).map_err(|e| {
                Failure::new(format!("cannot write man pages to {}: {e}", directory.display()))
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
