//! Does to files what its standard input says, a line a step, and answers each with `ok` or the error's kind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::FileExt;

fn main() -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match step(&words) {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{:?}", error.raw_os_error().unwrap_or_default()),
        };
        writeln!(io::stdout(), "{answer}")?;
        io::stdout().flush()?;
    }
    Ok(())
}

fn step(words: &[&str]) -> io::Result<()> {
    match *words {
        ["write", path, text] => fs::write(path, text),
        ["append", path, text] => OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes()),
        ["patch", path, at, text] => {
            let at = at.parse().map_err(io::Error::other)?;
            OpenOptions::new().write(true).open(path)?.write_all_at(text.as_bytes(), at)
        }
        ["gather", path, first, second] => {
            let mut file = OpenOptions::new().append(true).open(path)?;
            let parts = [io::IoSlice::new(first.as_bytes()), io::IoSlice::new(second.as_bytes())];
            file.write_vectored(&parts).map(drop)
        }
        ["length", path, length] => {
            let length = length.parse().map_err(io::Error::other)?;
            OpenOptions::new().write(true).open(path)?.set_len(length)
        }
        ["sync", path] => File::open(path)?.sync_all(),
        ["sync-data", path] => File::open(path)?.sync_data(),
        ["rename", from, to] => fs::rename(from, to),
        ["remove", path] => fs::remove_file(path),
        ["link", from, to] => fs::hard_link(from, to),
        ["mkdir", path] => fs::create_dir(path),
        ["copy", from, to] => fs::copy(from, to).map(drop),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}
