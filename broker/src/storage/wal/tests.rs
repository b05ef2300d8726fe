//! What the log promises, against the simulated disk and against a real directory.

use proptest::prelude::*;

use super::format::{HEADER, RecordHeader};
use super::*;
use crate::storage::sim::{Fault, Keep, SimDisk, SimStorage};
use crate::storage::{FileStorage, Operation};

const FILE: u64 = 8 * BLOCK as u64;
const DIRECTORY: &str = "wal-3";

fn config(log_id: u64) -> WalConfig {
    WalConfig {
        file_length: FILE,
        spare_files: 2,
        ..WalConfig::new(DIRECTORY, 3, log_id)
    }
}

type Replayed = Vec<(Lsn, Vec<u8>)>;

fn open<S: Storage>(storage: S, from: Lsn) -> (Result<(Wal<S>, Recovery), WalError>, Replayed) {
    let mut replayed = Vec::new();
    let wal = Wal::open(storage, config(77), from, |lsn, entry| {
        replayed.push((lsn, entry.to_vec()));
    });
    (wal, replayed)
}

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(fastrand::Rng::with_seed(seed))
}

/// Commits one entry per record.
fn write<S: Storage>(wal: &mut Wal<S>, entries: impl IntoIterator<Item = Vec<u8>>) {
    for entry in entries {
        let lsn = wal.append(&[&entry]).unwrap();
        assert_eq!(wal.commit().unwrap(), lsn);
    }
}

fn entry(number: u8) -> Vec<u8> {
    vec![number; usize::from(number) * 37]
}

/// A log of twenty records in three files and what is in it.
fn filled() -> (SimDisk, Replayed) {
    let disk = disk(1);
    let (mut wal, _) = open(disk.start(), Lsn(1)).0.unwrap();
    write(&mut wal, (1..=20).map(entry));
    let all = (1..=20).map(|number| (Lsn(u64::from(number)), entry(number)));
    (disk, all.collect())
}

fn log_files(storage: &impl Storage) -> Vec<String> {
    let names = storage.list(DIRECTORY).unwrap();
    let names = names.iter().filter(|name| number(name, LOG_SUFFIX).is_some());
    names.map(|name| format!("{DIRECTORY}/{name}")).collect()
}

#[test]
fn what_was_synced_is_replayed_from_where_one_asks() {
    let (disk, all) = filled();
    for from in [1, 2, 7, 8, 20, 21] {
        let (wal, replayed) = open(disk.start(), Lsn(from));
        let (wal, recovery) = wal.unwrap();
        let wanted = usize::try_from(from).unwrap() - 1;
        assert_eq!(replayed, all.get(wanted..).unwrap());
        assert_eq!(recovery.last, Lsn(20));
        assert_eq!(recovery.entries, replayed.len() as u64);
        assert_eq!((wal.synced(), wal.machine().next_lsn()), (Lsn(20), Lsn(21)));
    }
}

#[test]
fn a_log_that_ends_before_its_checkpoint_is_refused() {
    let (disk, _) = filled();
    let refused = open(disk.start(), Lsn(22)).0.unwrap_err();
    assert!(
        matches!(
            refused,
            WalError::Behind {
                from: Lsn(22),
                next: Lsn(21)
            }
        ),
        "{refused}"
    );
    let storage = disk.start();
    for file in log_files(&storage) {
        storage.remove(&file).unwrap();
    }
    let refused = open(disk.start(), Lsn(2)).0.unwrap_err();
    assert!(matches!(refused, WalError::Behind { .. }), "{refused}");
}

#[test]
fn a_missing_file_is_refused() {
    for missing in 0..2 {
        let (disk, _) = filled();
        let storage = disk.start();
        let files = log_files(&storage);
        assert_eq!(files.len(), 3);
        storage.remove(&files[missing]).unwrap();
        let refused = open(disk.start(), Lsn(1)).0.unwrap_err();
        match missing {
            0 => assert!(
                matches!(refused, WalError::Missing { first: Lsn(8), .. }),
                "{refused}"
            ),
            _ => assert!(refused.to_string().contains(&files[1]), "{refused}"),
        }
    }
}

#[test]
fn a_shortened_file_is_refused() {
    for file in 0..3 {
        for length in [0, 100, 4096, FILE - 1] {
            let (disk, _) = filled();
            let storage = disk.start();
            let files = log_files(&storage);
            storage.open(&files[file]).unwrap().truncate(length).unwrap();
            let refused = open(disk.start(), Lsn(1)).0.unwrap_err();
            assert!(refused.to_string().contains(&files[file]), "{refused}");
            assert!(matches!(refused, WalError::Damaged { offset: 0, .. }));
        }
    }
}

#[test]
fn a_log_of_another_shard_is_refused() {
    let (disk, _) = filled();
    let other = WalConfig {
        shard: 4,
        ..config(77)
    };
    let refused = Wal::open(disk.start(), other, Lsn(1), |_, _| ()).unwrap_err();
    assert!(
        matches!(refused, WalError::Damaged { offset: 0, .. }),
        "{refused}"
    );
}

#[test]
fn the_length_of_files_is_checked() {
    for file_length in [0, 4096, 8191, 8193, (4 << 30) + 4096] {
        let bad = WalConfig {
            file_length,
            ..config(77)
        };
        let refused = Wal::open(disk(1).start(), bad, Lsn(1), |_, _| ()).unwrap_err();
        assert!(matches!(refused, WalError::BadFileLength(_)));
    }
}

#[test]
fn damage_in_the_middle_is_refused_and_never_cut() {
    let (disk, all) = filled();
    let files = log_files(&disk.start());
    for (index, record) in (0..19).map(|index| (index, 1 + index % 7)) {
        let file = &files[index / 7];
        let offset = record * BLOCK;
        for byte in [0, 9, 17, 41, 45, 49, 53, 61, 64, 68 + index * 37] {
            assert!(disk.flip_bit(file, offset + byte, 3));
            let refused = open(disk.start(), Lsn(1)).0.unwrap_err();
            let message = refused.to_string();
            let WalError::Damaged {
                file: named,
                offset: at,
                ..
            } = refused
            else {
                panic!("{message}");
            };
            // Damage at the end of a file shows where the next one does not go on; else where it is.
            assert!((&named, at) == (file, offset as u64) || record == 7, "{message}");
            assert!(disk.flip_bit(file, offset + byte, 3));
            let (wal, replayed) = open(disk.start(), Lsn(1));
            assert!(wal.is_ok(), "nothing was changed");
            assert_eq!(replayed, all);
        }
    }
    for file in &files {
        assert!(disk.flip_bit(file, 17, 0));
        assert!(matches!(
            open(disk.start(), Lsn(1)).0,
            Err(WalError::Damaged { offset: 0, .. })
        ));
        assert!(disk.flip_bit(file, 17, 0));
    }
}

#[test]
fn one_flipped_bit_anywhere_is_seen_or_does_not_matter() {
    let (disk, all) = filled();
    let files = log_files(&disk.start());
    let last = &files[2];
    for file in &files {
        for offset in (0..FILE as usize).step_by(13) {
            assert!(disk.flip_bit(file, offset, offset as u32));
            let (wal, replayed) = open(disk.start(), Lsn(1));
            match wal {
                Err(refused) => assert!(matches!(refused, WalError::Damaged { .. }), "{refused}"),
                Ok(_) if file == last => assert!(replayed == all || replayed == all[..19]),
                Ok(_) => assert_eq!(replayed, all),
            }
            assert!(disk.flip_bit(file, offset, offset as u32));
        }
    }
}

#[test]
fn every_torn_length_of_the_last_record_is_cut_to_the_one_before() {
    for kept in (0..BLOCK).step_by(64) {
        let (disk, all) = filled();
        let files = log_files(&disk.start());
        let file = disk.start().open(&files[2]).unwrap();
        let offset = 6 * BLOCK as u64;
        file.write_at(offset + kept as u64, &vec![0; BLOCK - kept])
            .unwrap();
        let (wal, replayed) = open(disk.start(), Lsn(1));
        let (mut wal, recovery) = wal.unwrap();
        let whole = 64 + 4 + entry(20).len() <= kept;
        assert_eq!(replayed, all[..if whole { 20 } else { 19 }]);
        let begun = kept >= 64 && !whole;
        assert_eq!(recovery.cut.is_some(), begun, "{kept}");
        if let Some(cut) = recovery.cut {
            assert_eq!((&cut.file, cut.offset), (&files[2], offset));
        }
        // What comes after a cut takes the numbers that nobody was told of.
        let next = wal.append(&[b"new"]).unwrap();
        assert_eq!(wal.commit().unwrap(), next);
        disk.power_cut(Keep::Nothing);
        let (wal, replayed) = open(disk.start(), next);
        assert!(wal.is_ok());
        assert_eq!(replayed, [(next, b"new".to_vec())]);
    }
}

#[test]
fn old_records_of_a_recycled_file_are_never_replayed() {
    let (disk, _) = filled();
    let (mut wal, _) = open(disk.start(), Lsn(1)).0.unwrap();
    assert_eq!(wal.recycle(Lsn(7)).unwrap(), 0, "the first file has entry 7");
    assert_eq!(
        wal.recycle(Lsn(1000)).unwrap(),
        2,
        "the file with the last entry stays"
    );
    let storage = disk.start();
    assert_eq!(log_files(&storage).len(), 1);
    let (mut wal, _) = open(disk.start(), Lsn(21)).0.unwrap();
    // The two next files are old ones; each gets one record and keeps six old ones behind it.
    write(&mut wal, [vec![21; 9]]);
    assert!(wal.prepare(1).unwrap(), "a spare file needs no zeros");
    write(&mut wal, [vec![22; 20_000], vec![23; 9], vec![24; 20_000]]);
    let names = disk.start().list(DIRECTORY).unwrap();
    assert_eq!(names.len(), 3, "no new file was made: {names:?}");
    let (wal, replayed) = open(disk.start(), Lsn(21));
    assert!(wal.is_ok());
    let lsns: Vec<u64> = replayed.iter().map(|(lsn, _)| lsn.0).collect();
    assert_eq!(lsns, [21, 22, 23, 24]);
}

#[test]
fn files_made_ahead_with_another_length_are_not_used() {
    for new_length in [2 * FILE, FILE / 2] {
        let disk = disk(9);
        let (mut wal, _) = open(disk.start(), Lsn(1)).0.unwrap();
        write(&mut wal, (1..=3).map(entry));
        assert!(wal.prepare(u64::MAX).unwrap());
        drop(wal);
        let reopen = |replayed: &mut Replayed| {
            let config = WalConfig {
                file_length: new_length,
                ..config(77)
            };
            let wal = Wal::open(disk.start(), config, Lsn(1), |lsn, entry| {
                replayed.push((lsn, entry.to_vec()));
            });
            wal.unwrap().0
        };
        let mut wal = reopen(&mut Vec::new());
        write(&mut wal, (4..=60).map(entry));
        drop(wal);
        let mut replayed = Vec::new();
        reopen(&mut replayed);
        let all = (1..=60).map(|number| (Lsn(u64::from(number)), entry(number)));
        assert!(replayed.into_iter().eq(all), "{new_length}");
    }
}

#[test]
fn a_new_file_is_made_in_steps() {
    let disk = disk(8);
    let (mut wal, _) = open(disk.start(), Lsn(1)).0.unwrap();
    let mut steps = 1;
    while !wal.prepare(5000).unwrap() {
        assert_eq!(log_files(&wal.storage).len(), 1);
        steps += 1;
    }
    assert_eq!(steps, FILE.div_ceil(5000));
    assert_eq!(log_files(&wal.storage).len(), 2);
    let calls = disk.calls();
    assert!(wal.prepare(5000).unwrap());
    assert_eq!(disk.calls(), calls, "nothing is left to do");
}

#[test]
fn files_are_synced_before_they_are_believed() {
    for nth in 1..=3 {
        let (disk, _) = filled();
        disk.inject(Some(Operation::Sync), nth, Fault::Io);
        let (refused, replayed) = open(disk.start(), Lsn(1));
        assert!(matches!(refused, Err(WalError::Storage(_))));
        assert!(
            replayed.is_empty(),
            "one sync per file comes before the first entry"
        );
    }
}

/// Writes the last record of a log anew, changed, with checksums that hold.
fn forge(change: impl FnOnce(&mut RecordHeader)) -> (Replayed, Replayed) {
    let (outcome, replayed, all) = try_forge(change);
    assert!(outcome.is_ok());
    (replayed, all)
}

fn try_forge(change: impl FnOnce(&mut RecordHeader)) -> (Result<(), WalError>, Replayed, Replayed) {
    let (disk, all) = filled();
    let storage = disk.start();
    let file = storage.open(&log_files(&storage)[2]).unwrap();
    let mut record = vec![0; BLOCK];
    file.read_at(6 * BLOCK as u64, &mut record).unwrap();
    let mut header = RecordHeader::decode(&record).unwrap();
    record.truncate(HEADER + usize::try_from(header.length).unwrap());
    change(&mut header);
    header.seal(&mut record);
    file.write_at(6 * BLOCK as u64, &record).unwrap();
    let (wal, replayed) = open(disk.start(), Lsn(1));
    (wal.map(drop), replayed, all)
}

#[test]
fn a_record_must_be_of_this_use_of_the_file_and_follow_the_one_before() {
    let (replayed, all) = forge(|_| ());
    assert_eq!(replayed, all, "the forger knows how");
    let (replayed, all) = forge(|header| header.salt ^= 1);
    assert_eq!(replayed, all[..19], "another use of the file");
    let (outcome, replayed, all) = try_forge(|header| header.previous_crc ^= 1);
    let refused = outcome.unwrap_err();
    assert!(matches!(refused, WalError::Damaged { .. }), "{refused}");
    assert_eq!(
        replayed,
        all[..19],
        "follows another record: what it followed is lost"
    );
    let (replayed, all) = forge(|header| header.lsn = Lsn(19));
    assert_eq!(replayed, all[..19], "was there before");
    let (replayed, all) = forge(|header| header.shard = 4);
    assert_eq!(replayed, all[..19], "of another shard");
}

#[test]
fn salts_of_files_differ() {
    let salts: BTreeMap<u64, u64> = (1..=1000)
        .map(|sequence| {
            let header = FileHeader {
                shard: 3,
                log_id: 77,
                sequence,
                length: FILE,
            };
            (header.salt(), sequence)
        })
        .collect();
    assert_eq!(salts.len(), 1000);
}

#[test]
fn a_full_disk_holds_up_the_log_and_room_lets_it_go_on() {
    let disk = disk(5);
    let (mut wal, _) = open(disk.start(), Lsn(1)).0.unwrap();
    write(&mut wal, (1..=7).map(entry));
    let waiting = wal.append(&[b"waits"]).unwrap();
    disk.inject(Some(Operation::Write), 1, Fault::NoSpace);
    let full = wal.commit().unwrap_err();
    assert!(
        matches!(&full, WalError::Storage(error) if error.kind() == ErrorKind::NoSpace),
        "{full}"
    );
    assert_eq!(wal.synced(), Lsn(7));
    assert_eq!(wal.commit().unwrap(), waiting);
    disk.power_cut(Keep::Nothing);
    assert_eq!(open(disk.start(), waiting).1, [(waiting, b"waits".to_vec())]);
}

#[test]
fn a_failed_sync_ends_the_log() {
    let disk = disk(6);
    let (mut wal, _) = open(disk.start(), Lsn(1)).0.unwrap();
    write(&mut wal, [entry(1)]);
    wal.append(&[b"lost"]).unwrap();
    disk.inject(Some(Operation::Sync), 1, Fault::Io);
    assert!(wal.commit().is_err());
    assert_eq!(wal.synced(), Lsn(1));
    assert_eq!(wal.append(&[b"more"]), Err(AppendError::Failed));
    assert!(wal.commit().is_err());
    assert!(wal.prepare(1).is_err());
    assert!(wal.recycle(Lsn(1)).is_err());
}

/// Drives a log through lives and deaths and compares with what it said.
struct Model {
    disk: SimDisk,
    random: fastrand::Rng,
    /// Entry of LSN 1 first.
    entries: Vec<Vec<u8>>,
    synced: Lsn,
    /// Entries below are covered by a checkpoint.
    from: Lsn,
    lives: u32,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            disk: SimDisk::new(random.fork()),
            random,
            entries: Vec::new(),
            synced: Lsn(0),
            from: Lsn(1),
            lives: 0,
        }
    }

    /// Opens and checks what comes back. An injected error ends the attempt.
    fn open(&mut self) -> Option<Wal<SimStorage>> {
        self.lives += 1;
        let (wal, replayed) = open(self.disk.start(), self.from);
        let (wal, recovery) = match wal {
            Ok(opened) => opened,
            Err(WalError::Storage(_)) => return None,
            Err(refused) => panic!("a crash is no damage: {refused}"),
        };
        self.check(&replayed, recovery.last);
        // What was replayed counts as safe from now on; what was not never happened.
        self.synced = recovery.last;
        self.entries.truncate(usize::try_from(recovery.last.0).unwrap());
        assert_eq!(wal.synced(), recovery.last);
        Some(wal)
    }

    fn check(&self, replayed: &Replayed, last: Lsn) {
        assert!(last >= self.synced, "{last} is there, {} was synced", self.synced);
        let mut lsn = self.from;
        for (found, entry) in replayed {
            assert_eq!(*found, lsn, "in order and once");
            let index = usize::try_from(lsn.0).unwrap() - 1;
            assert_eq!(Some(entry), self.entries.get(index), "nothing is invented");
            lsn = lsn.next();
        }
        assert_eq!(lsn, last.next());
    }

    fn append(&mut self, wal: &mut Wal<SimStorage>) {
        let length = match self.random.u8(0..8) {
            0 => self.random.usize(0..20_000),
            1..4 => self.random.usize(0..5_000),
            _ => self.random.usize(0..200),
        };
        let entry: Vec<u8> = std::iter::repeat_with(|| self.random.u8(..))
            .take(length)
            .collect();
        let split = self.random.usize(0..=length);
        let lsn = wal.append(&[&entry[..split], &entry[split..]]).unwrap();
        assert_eq!(lsn.0, self.entries.len() as u64 + 1);
        self.entries.push(entry);
    }

    /// One step of a life. `None` after an error.
    fn step(&mut self, wal: &mut Wal<SimStorage>) -> Option<()> {
        match self.random.u8(0..16) {
            0..8 => self.append(wal),
            8..13 => {
                let reported = wal.commit().ok()?;
                assert!(reported >= self.synced);
                self.synced = reported;
            }
            13 => {
                let step = self.random.u64(1..2 * FILE);
                wal.prepare(step).ok()?;
            }
            _ => {
                let checkpoint = self.random.u64(self.from.0..=self.synced.0 + 1);
                self.from = Lsn(checkpoint);
                wal.recycle(self.from).ok()?;
            }
        }
        Some(())
    }

    /// The last thing a life does: maybe a commit that gets no further than its write.
    fn die(&mut self, mut wal: Wal<SimStorage>) {
        if self.random.bool()
            && let Ok(Some(commit)) = wal.start_commit()
        {
            let bytes = commit.group.bytes();
            let written = self.random.usize(0..=bytes.len());
            let _ = commit.file.write_at(commit.group.offset(), &bytes[..written]);
        }
        match self.random.u8(0..6) {
            // A killed process: memory stays.
            0..2 => {}
            2 => self.disk.power_cut(Keep::Nothing),
            3 => self.disk.power_cut(Keep::Everything),
            4 => self.disk.power_cut(Keep::Pages),
            _ => self.disk.power_cut(Keep::Sectors),
        }
    }

    fn live(&mut self) {
        if let Some(mut wal) = self.open() {
            for _ in 0..self.random.u8(0..25) {
                if self.step(&mut wal).is_none() {
                    break;
                }
            }
            if wal.failure.is_some() {
                assert_eq!(wal.append(&[b"late"]), Err(AppendError::Failed));
            }
            self.die(wal);
        }
    }
}

#[test]
fn what_was_reported_synced_survives_any_crash() {
    let (mut entries, mut lives) = (0, 0);
    for seed in 0..2_000 {
        let mut model = Model::new(seed);
        for _ in 0..6 {
            model.live();
        }
        assert!(model.open().is_some());
        entries += model.synced.0;
        lives += model.lives;
    }
    assert!(entries > 20_000, "{entries}");
    assert_eq!(lives, 14_000);
}

#[test]
fn what_was_reported_synced_survives_errors_of_the_disk() {
    let (mut failed, mut entries) = (0, 0);
    for seed in 0..2_000 {
        let mut model = Model::new(seed ^ 0x5eed_0000);
        for _ in 0..6 {
            let nth = model.random.u64(1..40);
            let fault = if model.random.u8(0..4) == 0 {
                Fault::NoSpace
            } else {
                Fault::Io
            };
            let operation = [
                None,
                Some(Operation::Sync),
                Some(Operation::Write),
                Some(Operation::SyncDir),
            ];
            let operation = operation[model.random.usize(0..4)];
            model.disk.inject(
                operation,
                1 + nth / if operation.is_some() { 4 } else { 1 },
                fault,
            );
            let lives = model.lives;
            model.live();
            failed += model.lives - lives;
            model.disk.heal();
        }
        // Twice: what was recovered once is there for good.
        assert!(model.open().is_some());
        model.disk.power_cut(Keep::Nothing);
        assert!(model.open().is_some());
        entries += model.synced.0;
    }
    assert_eq!(failed, 12_000);
    assert!(entries > 5_000, "{entries}");
}

#[test]
fn every_sync_leaves_a_disk_that_can_be_recovered() {
    let mut images = 0;
    for seed in 0..20 {
        let mut model = Model::new(seed ^ 0x1a6e);
        model.disk.keep_images();
        let mut wal = model.open().unwrap();
        for _ in 0..60 {
            let before = (model.synced, model.from);
            model.step(&mut wal).unwrap();
            for image in model.disk.take_images() {
                images += 1;
                for keep in [Keep::Sectors, Keep::Pages, Keep::Nothing] {
                    image.power_cut(keep);
                    // A checkpoint is durable before files are recycled for it.
                    let (wal, replayed) = open(image.start(), model.from);
                    let (_, recovery) = wal.unwrap();
                    assert!(recovery.last >= before.0);
                    for (lsn, entry) in &replayed {
                        let index = usize::try_from(lsn.0).unwrap() - 1;
                        assert_eq!(Some(entry), model.entries.get(index));
                    }
                    assert_eq!(replayed.len() as u64, recovery.last.next().0 - model.from.0);
                }
            }
        }
    }
    assert!(images > 400, "{images}");
}

#[test]
fn an_error_at_any_call_of_a_script_loses_nothing() {
    let script = |disk: &SimDisk| -> Lsn {
        let mut synced = Lsn(0);
        let Ok((mut wal, _)) = open(disk.start(), Lsn(1)).0 else {
            return synced;
        };
        for number in 1..=16 {
            if number == 9 && wal.prepare(u64::MAX).is_err() {
                return synced;
            }
            if wal.append(&[&entry(number)]).is_err() {
                return synced;
            }
            match wal.commit() {
                Ok(reported) => synced = reported,
                Err(_) => return synced,
            }
        }
        synced
    };
    let clean = disk(9);
    assert_eq!(script(&clean), Lsn(16));
    let calls = clean.calls();
    for fault in [Fault::Io, Fault::NoSpace] {
        for nth in 1..=calls {
            for keep in [None, Some(Keep::Nothing), Some(Keep::Sectors)] {
                let disk = disk(nth);
                disk.inject(None, nth, fault);
                let synced = script(&disk);
                assert!(synced < Lsn(16), "call {nth} failed");
                if let Some(keep) = keep {
                    disk.power_cut(keep);
                }
                let (wal, replayed) = open(disk.start(), Lsn(1));
                assert!(wal.unwrap().1.last >= synced);
                disk.power_cut(Keep::Nothing);
                let (wal, again) = open(disk.start(), Lsn(1));
                assert!(wal.is_ok());
                assert_eq!(replayed, again, "what was replayed once is durable");
            }
        }
    }
}

#[test]
fn two_runs_of_a_seed_are_the_same() {
    let run = |seed| {
        let mut model = Model::new(seed);
        for _ in 0..6 {
            model.live();
        }
        (model.entries, model.synced, model.from, model.disk.calls())
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_never_panic_and_never_come_back_as_entries(
        changes in prop::collection::vec((0_usize..3, 0..FILE, prop::collection::vec(any::<u8>(), 1..80)), 0..12),
        moved in prop::option::of((0_usize..3, 0..8_u64, 0_usize..3, 0..8_u64)),
        cut in prop::option::of((0_usize..3, 0..FILE)),
        from in 1_u64..23,
    ) {
        let (disk, all) = filled();
        let storage = disk.start();
        let files = log_files(&storage);
        for (file, offset, bytes) in changes {
            storage.open(&files[file]).unwrap().write_at(offset, &bytes).unwrap();
        }
        // A block that is valid somewhere else.
        if let Some((source, from, target, to)) = moved {
            let mut block = [0; BLOCK];
            storage.open(&files[source]).unwrap().read_at(from * BLOCK as u64, &mut block).unwrap();
            storage.open(&files[target]).unwrap().write_at(to * BLOCK as u64, &block).unwrap();
        }
        if let Some((file, length)) = cut {
            storage.open(&files[file]).unwrap().truncate(length).unwrap();
        }
        let (wal, replayed) = open(disk.start(), Lsn(from));
        for (index, found) in replayed.iter().enumerate() {
            prop_assert_eq!(Some(found), all.get(usize::try_from(from).unwrap() - 1 + index));
        }
        if let Ok((mut wal, _)) = wal {
            wal.append(&[b"goes on"]).unwrap();
            prop_assert!(wal.commit().is_ok());
        }
    }
}

#[test]
fn a_real_directory_keeps_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let start = || FileStorage::open(directory.path()).unwrap();
    let storage = start();
    let lock = storage.lock().unwrap();
    let (mut wal, recovery) = open(storage.clone(), Lsn(1)).0.unwrap();
    assert_eq!(recovery, Recovery::default());
    write(&mut wal, (1..=20).map(entry));
    assert_eq!(start().lock().unwrap_err().kind(), ErrorKind::InUse);
    drop((wal, lock));
    let (wal, replayed) = open(start(), Lsn(5));
    let (mut wal, recovery) = wal.unwrap();
    assert_eq!(recovery.last, Lsn(20));
    assert_eq!(replayed.len(), 16);
    assert_eq!(wal.recycle(Lsn(20)).unwrap(), 2);
    write(&mut wal, (21..=40).map(entry));
    assert_eq!(open(start(), Lsn(20)).1.len(), 21);
}
