//! Which rank of how many this process is, by what its launcher put into the environment.
//!
//! The innermost launcher wins, since an outer one's variables are inherited: hallmark's own, then torchrun, Open MPI,
//! the PMI family, PMIx, Slurm inside a step, an indexed Kubernetes job. It refuses numbers that contradict themselves.
//! What it finds is a claim: the controller counts who really joins, and compares what they believe.

use serde::{Deserialize, Serialize};

/// A process's place among those that one launcher started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rank {
    pub rank: u32,
    /// How many the launcher started, where it says so.
    pub world: Option<u32>,
    /// Whose variables said so.
    pub launcher: String,
}

/// Variables of an environment that make no sense together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RankError {
    #[error("{variable}=`{value}` of {launcher} is no number")]
    Number {
        launcher: &'static str,
        variable: &'static str,
        value: String,
    },
    #[error("{launcher} calls this process rank {rank} of {world}; ranks count from 0")]
    Beyond {
        launcher: &'static str,
        rank: u32,
        world: u32,
    },
}

/// How one launcher tells ranks.
struct Convention {
    launcher: &'static str,
    /// Its ranks count only where this is set.
    only_with: &'static str,
    rank: &'static str,
    world: Option<&'static str>,
}

/// Innermost first. Sources: torchrun, “Environment Variables”; Open MPI 5.0, `mpirun(1)`; MPICH's Hydra, PMI-1;
/// OpenPMIx 4.2; `srun(1)` 22.05, “Output environment variables”; Kubernetes, “Indexed Job”.
const CONVENTIONS: [Convention; 7] = [
    Convention {
        launcher: "hallmark",
        only_with: "HALLMARK_RANK",
        rank: "HALLMARK_RANK",
        world: Some("HALLMARK_WORLD_SIZE"),
    },
    Convention {
        launcher: "torchrun",
        only_with: "TORCHELASTIC_RUN_ID",
        rank: "RANK",
        world: Some("WORLD_SIZE"),
    },
    Convention {
        launcher: "Open MPI",
        only_with: "OMPI_COMM_WORLD_RANK",
        rank: "OMPI_COMM_WORLD_RANK",
        world: Some("OMPI_COMM_WORLD_SIZE"),
    },
    Convention {
        launcher: "PMI",
        only_with: "PMI_RANK",
        rank: "PMI_RANK",
        world: Some("PMI_SIZE"),
    },
    Convention {
        launcher: "PMIx",
        only_with: "PMIX_RANK",
        rank: "PMIX_RANK",
        world: None,
    },
    Convention {
        launcher: "Slurm",
        // Set for a batch script too, which is no rank of anything; a step has an id of its own.
        only_with: "SLURM_STEP_ID",
        rank: "SLURM_PROCID",
        world: Some("SLURM_NTASKS"),
    },
    Convention {
        launcher: "Kubernetes",
        only_with: "JOB_COMPLETION_INDEX",
        rank: "JOB_COMPLETION_INDEX",
        world: None,
    },
];

/// The rank by the innermost launcher; `None` where nothing started this process as one of many.
///
/// # Errors
/// [`RankError`]: that launcher's variables make no sense. No outer one is asked then, for it means other processes.
pub fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Rank>, RankError> {
    let innermost = CONVENTIONS
        .iter()
        .find(|c| variable(c.only_with).is_some() && variable(c.rank).is_some());
    let Some(convention) = innermost else {
        return Ok(None);
    };
    let launcher = convention.launcher;
    let number = |name: &'static str| match variable(name) {
        None => Ok(None),
        Some(value) => value
            .trim()
            .parse::<u32>()
            .map(Some)
            .map_err(|_| RankError::Number {
                launcher,
                variable: name,
                value,
            }),
    };
    let rank = number(convention.rank)?.unwrap_or_default();
    let world = convention.world.map_or(Ok(None), number)?;
    match world {
        Some(world) if rank >= world => Err(RankError::Beyond {
            launcher,
            rank,
            world,
        }),
        _ => Ok(Some(Rank {
            rank,
            world,
            launcher: launcher.to_owned(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(vars: &[(&str, &str)]) -> Result<Option<Rank>, RankError> {
        find(|name| {
            let found = vars.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const SLURM: [(&str, &str); 3] = [
        ("SLURM_STEP_ID", "0"),
        ("SLURM_PROCID", "3"),
        ("SLURM_NTASKS", "4"),
    ];

    #[test]
    fn the_innermost_launcher_wins_and_an_outer_ones_variables_are_left_alone() {
        let layers: [&[(&str, &str)]; 6] = [
            &[("JOB_COMPLETION_INDEX", "9")],
            &SLURM,
            &[("PMIX_RANK", "8")],
            &[("PMI_RANK", "2"), ("PMI_SIZE", "3")],
            &[("OMPI_COMM_WORLD_RANK", "5"), ("OMPI_COMM_WORLD_SIZE", "6")],
            &[
                ("TORCHELASTIC_RUN_ID", "x"),
                ("RANK", "1"),
                ("WORLD_SIZE", "2"),
            ],
        ];
        let expected = [
            ("Kubernetes", 9, None),
            ("Slurm", 3, Some(4)),
            ("PMIx", 8, None),
            ("PMI", 2, Some(3)),
            ("Open MPI", 5, Some(6)),
            ("torchrun", 1, Some(2)),
        ];
        let mut vars = Vec::new();
        for (layer, (launcher, rank, world)) in layers.iter().zip(expected) {
            vars.extend_from_slice(layer);
            let found = among(&vars).unwrap().unwrap();
            assert_eq!(
                (found.launcher.as_str(), found.rank, found.world),
                (launcher, rank, world)
            );
        }
    }

    #[test]
    fn what_is_no_rank_is_none() {
        assert_eq!(among(&[]), Ok(None));
        // `RANK` alone belongs to anybody, and a batch script is not a step.
        assert_eq!(among(&[("RANK", "1"), ("WORLD_SIZE", "2")]), Ok(None));
        assert_eq!(among(&SLURM[1..]), Ok(None));
    }

    #[test]
    fn numbers_that_contradict_themselves_are_refused_by_name_and_no_outer_launcher_is_asked() {
        let mut vars = SLURM.to_vec();
        vars.push(("PMI_RANK", "x"));
        let told = among(&vars).unwrap_err().to_string();
        assert_eq!(told, "PMI_RANK=`x` of PMI is no number");
        vars.pop();
        vars.extend([("PMI_RANK", "4"), ("PMI_SIZE", "4")]);
        let told = among(&vars).unwrap_err().to_string();
        assert_eq!(
            told,
            "PMI calls this process rank 4 of 4; ranks count from 0"
        );
    }
}
