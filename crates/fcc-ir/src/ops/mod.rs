//! The operators. A new one is a module with an [`Operator`] and a line in the list below.
use crate::op::{Operator, Schema};
use std::collections::HashMap;
use std::sync::LazyLock;

macro_rules! operators {
    ($($variant:ident => $operator:expr,)*) => {
        /// Which operator a node is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Op {
            $($variant,)*
            /// An operator fcc does not know, or a call of a model's function. It is kept, and not computed.
            Opaque,
        }

        impl Op {
            /// Every operator fcc knows.
            pub const ALL: &'static [Op] = &[$(Op::$variant,)*];
            /// The operator's own module; `None` for [`Op::Opaque`].
            pub fn operator(self) -> Option<&'static dyn Operator> {
                match self { $(Op::$variant => Some(&$operator),)* Op::Opaque => None }
            }
        }
    };
}

pub mod broadcast;
pub mod constant;
pub mod conv;
pub mod identity;
pub mod unary;

operators! {
    Abs => unary::ABS,
    Constant => constant::Constant,
    Conv => conv::Conv,
    Identity => identity::Identity,
    Relu => unary::RELU,
}

static BY_NAME: LazyLock<HashMap<(&'static str, &'static str), Op>> = LazyLock::new(|| {
    let key = |op: Op| op.schema().map(|s| ((s.domain, s.name), op));
    Op::ALL.iter().filter_map(|op| key(*op)).collect()
});

impl Op {
    /// The operator of this domain (`""` for `ai.onnx`) and name; [`Op::Opaque`] if there is none.
    pub fn lookup(domain: &str, name: &str) -> Op {
        BY_NAME.get(&(domain, name)).copied().unwrap_or(Op::Opaque)
    }
    /// Whether two runs on the same inputs may differ.
    pub fn is_random(self) -> bool {
        // every operator that draws is named so; the list test holds this
        self.schema()
            .is_some_and(|s| s.name.starts_with("Random") || matches!(s.name, "Multinomial" | "Bernoulli"))
    }
    /// The operator's fixed facts; `None` for [`Op::Opaque`].
    pub fn schema(self) -> Option<Schema> {
        self.operator().map(|o| o.schema())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_unique_and_ordered() {
        assert_eq!(BY_NAME.len(), Op::ALL.len(), "two operators share a name");
        for op in Op::ALL {
            let s = op.schema().unwrap();
            assert!(s.since.is_sorted() && !s.since.is_empty(), "{}", s.name);
            assert!(s.inputs.0 <= s.inputs.1 && s.outputs.0 <= s.outputs.1, "{}", s.name);
        }
    }
}
