//! The program: parse, dispatch, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodectl::cli::root::main(std::env::args_os())
}
