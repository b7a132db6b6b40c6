//! What becomes of the weights of the leaves that a row reaches: aggregate, base values, class, transform.
use super::super::classes::top;
use super::super::post_transform::{PostTransform, Second};
use super::super::real::Real;
use super::ensemble::{Ensemble, Node};
use crate::{Error, Result};

/// How the weights for one target become one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// The sum divided by the number of trees.
    Average,
    /// The sum.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

impl Aggregate {
    /// By the name that versions 1 and 3 give it.
    pub fn of_name(name: &str) -> Result<Aggregate> {
        Ok(match name {
            "AVERAGE" => Aggregate::Average,
            "SUM" => Aggregate::Sum,
            "MIN" => Aggregate::Min,
            "MAX" => Aggregate::Max,
            other => {
                return Err(Error::mismatch(
                    "attribute `aggregate_function`",
                    other,
                    "AVERAGE, SUM, MIN or MAX",
                ));
            }
        })
    }
    /// By the number that version 5 gives it.
    pub fn of_code(code: i64) -> Result<Aggregate> {
        Ok(match code {
            0 => Aggregate::Average,
            1 => Aggregate::Sum,
            2 => Aggregate::Min,
            3 => Aggregate::Max,
            other => return Err(Error::mismatch("attribute `aggregate_function`", other, "0 to 3")),
        })
    }
    /// A score with one weight more; `None` before the first.
    #[inline(always)]
    pub fn add<T: Real>(self, score: T, scored: bool, weight: T) -> T {
        match self {
            Aggregate::Average | Aggregate::Sum => score + weight,
            Aggregate::Min if !scored || weight < score => weight,
            Aggregate::Max if !scored || weight > score => weight,
            Aggregate::Min | Aggregate::Max => score,
        }
    }
}

/// How a classifier of two classes sees its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A regressor: there are no classes.
    Regression,
    /// The first greatest of the scores that a leaf gave or that have a base value.
    Top,
    /// Two classes, and all weights are for one of them. The second class wins above 0.5 where no weight is negative,
    /// else above 0.
    Binary {
        /// Whether no weight is negative.
        positive: bool,
    },
}

/// What turns sums of weights into outputs.
#[derive(Debug, Clone)]
pub struct Head<T> {
    /// How weights become scores.
    pub aggregate: Aggregate,
    /// What is added then; one for each target, one, or none.
    pub base: Vec<T>,
    /// What the scores become.
    pub transform: PostTransform,
    /// How the class is found.
    pub rule: Rule,
    /// The number of trees.
    pub trees: usize,
}

/// The scores of one row in the making.
#[derive(Debug, Clone)]
pub struct Scores<T> {
    /// One for each target.
    pub score: Vec<T>,
    /// Whether a leaf had a weight for the target.
    pub scored: Vec<bool>,
}

impl<T: Real> Scores<T> {
    /// Of no tree yet.
    pub fn new(targets: usize) -> Scores<T> {
        Scores { score: vec![T::default(); targets], scored: vec![false; targets] }
    }
    /// Adds the weights of a leaf.
    pub fn add(&mut self, aggregate: Aggregate, ensemble: &Ensemble<T>, leaf: &Node<T>) {
        if ensemble.is_lone() {
            return self.add_one(aggregate, 0, leaf.value());
        }
        for (target, weight) in ensemble.weights(leaf) {
            self.add_one(aggregate, *target as usize, *weight);
        }
    }
    fn add_one(&mut self, aggregate: Aggregate, target: usize, weight: T) {
        self.score[target] = aggregate.add(self.score[target], self.scored[target], weight);
        self.scored[target] = true;
    }
}

impl<T: Real> Head<T> {
    /// Finishes a row: writes its outputs in another format, transformed, and returns the number of its class (0 of a
    /// regressor). `out` has one place for each target.
    pub fn finish<O: Real>(&self, scores: &mut Scores<T>, out: &mut [O]) -> usize {
        if self.aggregate == Aggregate::Average {
            let trees = T::from_f64(self.trees as f64);
            scores.score.iter_mut().for_each(|s| *s /= trees);
        }
        let convert = |v: T| O::from_f64(v.to_f64());
        if let Rule::Binary { positive } = self.rule {
            return self.finish_binary(scores, positive, out);
        }
        // one base value of several targets is for the first alone
        for ((score, scored), base) in scores.score.iter_mut().zip(&mut scores.scored).zip(&self.base) {
            *score += *base;
            *scored = true;
        }
        let class = if self.rule == Rule::Regression { 0 } else { top_scored(scores) };
        out.iter_mut().zip(&scores.score).for_each(|(o, s)| *o = convert(*s));
        self.transform.apply(out);
        class
    }

    /// Two classes with all weights for one of them, as ONNX Runtime has it.
    fn finish_binary<O: Real>(&self, scores: &mut Scores<T>, positive: bool, out: &mut [O]) -> usize {
        let convert = |v: T| O::from_f64(v.to_f64());
        let (mut s, second) = ([scores.score[0], scores.score[1]], scores.scored[1]);
        let mut one_column = !second;
        match self.base[..] {
            [] => {}
            [base] => s[0] += base,
            _ if second => {
                s[1] += self.base[1];
                s[0] = -s[1];
            }
            _ => {
                s = [s[0] + self.base[0], s[1] + self.base[1]];
                one_column = false;
            }
        }
        let deciding = if second { s[1] } else { s[0] };
        let limit = T::from_f64(if positive { 0.5 } else { 0.0 });
        if one_column {
            let columns = if positive { Second::Complement } else { Second::Opposite };
            self.transform.apply_one(convert(s[0]), columns, out);
        } else {
            out.iter_mut().zip(s).for_each(|(o, s)| *o = convert(s));
            self.transform.apply(out);
        }
        usize::from(deciding > limit)
    }
}

/// The first greatest score among those that there are; 0 if there are none.
fn top_scored<T: Real>(scores: &Scores<T>) -> usize {
    let there: Vec<usize> = (0..scores.score.len()).filter(|i| scores.scored[*i]).collect();
    let values: Vec<T> = there.iter().map(|i| scores.score[*i]).collect();
    there.get(top(&values)).copied().unwrap_or(0)
}
