//! PMI 1, the protocol by which MPICH and its kin learn from their process manager who else is in their world.
//!
//! Lines of `key=value`, a question each, one answer each. What a process puts up it shows to all others at a barrier;
//! how cards travel between nodes is the caller's. It tells a process that it is alone on its node, so that what is
//! measured between nodes goes over the network. Source: MPICH's `src/pmi/src/pmi_wire.c` and `pmi_v1.c`, by behaviour.

use crate::protocol::link::Cards;
use std::collections::BTreeMap;

/// Longest line, and most cards of one process.
pub const LINE_MAX: usize = 64 << 10;
const CARDS_MAX: usize = 4_096;
/// Longest name, key and value, as MPICH's own manager has them: its processes read lines of little more.
const NAME_MAX: usize = 256;
const KEY_MAX: usize = 64;
const VALUE_MAX: usize = 1_024;
const SPACE: &str = "hallmark";

/// One process's side of the protocol.
pub struct Pmi {
    size: u32,
    /// What all have shown, this process among them.
    shown: BTreeMap<String, String>,
    /// What it has put up since the last barrier.
    fresh: Cards,
}

/// What a line comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Reply(String),
    /// It waits until all have come, and have shown these.
    Barrier(Cards),
    /// It leaves its world; this is the last answer.
    Leave(String),
    /// It wants to end all.
    Abort(String),
}

impl Pmi {
    /// Of a process in a world of this size.
    pub fn new(size: u32) -> Self {
        let mapping = format!("(vector,(0,{size},1))");
        Self {
            size,
            shown: BTreeMap::from([("PMI_process_mapping".to_owned(), mapping)]),
            fresh: Vec::new(),
        }
    }

    /// Answers a line.
    ///
    /// # Errors
    /// One sentence, for a line that is none of the protocol's or goes beyond its bounds.
    pub fn answer(&mut self, line: &str) -> Result<Answer, String> {
        let get = |key: &str| {
            let (_, rest) = line.split_once(&format!("{key}="))?;
            // A value may hold anything but the end of its line; it is the last word.
            let end = match key {
                "value" => rest.len(),
                _ => rest.find(' ').unwrap_or(rest.len()),
            };
            Some(rest[..end].trim_end_matches(['\n', '\r']).to_owned())
        };
        let command = get("cmd").ok_or_else(|| format!("no command: {}", shortened(line)))?;
        let reply = match command.as_str() {
            "init" => "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0".to_owned(),
            "get_maxes" => format!(
                "cmd=maxes kvsname_max={NAME_MAX} keylen_max={KEY_MAX} vallen_max={VALUE_MAX} rc=0"
            ),
            "get_appnum" => "cmd=appnum appnum=0 rc=0".to_owned(),
            "get_universe_size" => format!("cmd=universe_size size={} rc=0", self.size),
            "get_my_kvsname" => format!("cmd=my_kvsname kvsname={SPACE} rc=0"),
            "put" => {
                let (Some(key), Some(value)) = (get("key"), get("value")) else {
                    return Err(format!("it puts up nothing: {}", shortened(line)));
                };
                let full = self.fresh.len() >= CARDS_MAX;
                if key.is_empty() || key.len() > KEY_MAX || value.len() > VALUE_MAX || full {
                    return Err(format!("it puts up too much: {}", shortened(line)));
                }
                self.fresh.push((key, value));
                "cmd=put_result rc=0 msg=success".to_owned()
            }
            "get" => {
                let key = get("key").unwrap_or_default();
                let own = self.fresh.iter().rev().find(|(k, _)| *k == key);
                match own.map(|(_, v)| v).or_else(|| self.shown.get(&key)) {
                    Some(value) => format!("cmd=get_result rc=0 msg=success value={value}"),
                    None => "cmd=get_result rc=-1 msg=key_not_found value=unknown".to_owned(),
                }
            }
            "barrier_in" => return Ok(Answer::Barrier(std::mem::take(&mut self.fresh))),
            "finalize" => return Ok(Answer::Leave("cmd=finalize_ack rc=0".to_owned())),
            "abort" => return Ok(Answer::Abort(shortened(line))),
            _ => return Err(format!("it asks what is not known: {}", shortened(line))),
        };
        Ok(Answer::Reply(reply))
    }

    /// Takes what all have shown; gives the answer to the barrier.
    pub fn shown(&mut self, cards: Cards) -> &'static str {
        self.shown.extend(cards);
        "cmd=barrier_out rc=0"
    }
}

fn shortened(line: &str) -> String {
    const SHOWN: usize = 120;
    let printable = line.chars().filter(|c| !c.is_control());
    printable.take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(pmi: &mut Pmi, line: &str) -> String {
        match pmi.answer(line) {
            Ok(Answer::Reply(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_put_up_is_seen_by_the_others_after_a_barrier() {
        let (mut one, mut two) = (Pmi::new(2), Pmi::new(2));
        let maxes = reply(&mut one, "cmd=get_maxes\n");
        assert!(maxes.contains("vallen_max=1024"), "{maxes}");
        let put = "cmd=put kvsname=hallmark key=card-0 value=a=b c#d\n";
        assert_eq!(reply(&mut one, put), "cmd=put_result rc=0 msg=success");
        let get = "cmd=get kvsname=hallmark key=card-0\n";
        assert!(reply(&mut two, get).contains("rc=-1"));
        let Ok(Answer::Barrier(cards)) = one.answer("cmd=barrier_in\n") else {
            panic!("no barrier");
        };
        assert_eq!(
            two.answer("cmd=barrier_in\n"),
            Ok(Answer::Barrier(Vec::new()))
        );
        assert_eq!(two.shown(cards), "cmd=barrier_out rc=0");
        let got = reply(&mut two, get);
        assert_eq!(got, "cmd=get_result rc=0 msg=success value=a=b c#d");
    }

    #[test]
    fn each_process_is_told_that_it_is_alone_on_its_node() {
        let get = "cmd=get kvsname=hallmark key=PMI_process_mapping\n";
        assert!(reply(&mut Pmi::new(3), get).ends_with("value=(vector,(0,3,1))"));
    }

    #[test]
    fn what_is_none_of_the_protocol_is_refused_and_shown_short() {
        let long = format!("cmd=put key=k value={}\n", "x".repeat(VALUE_MAX + 1));
        for line in [
            "",
            "hello\n",
            "cmd=spawn nprocs=9\n",
            "cmd=put value=x\n",
            "cmd=put key=x\n",
            &long,
        ] {
            let refused = Pmi::new(2).answer(line).unwrap_err();
            assert!(refused.len() < 200, "{refused}");
        }
        let mut full = Pmi::new(2);
        for n in 0..CARDS_MAX {
            reply(&mut full, &format!("cmd=put key=k{n} value=v\n"));
        }
        assert!(full.answer("cmd=put key=more value=v\n").is_err());
        assert!(matches!(
            full.answer("cmd=abort exitcode=1\n"),
            Ok(Answer::Abort(_))
        ));
        assert!(matches!(
            full.answer("cmd=finalize\n"),
            Ok(Answer::Leave(_))
        ));
    }
}
