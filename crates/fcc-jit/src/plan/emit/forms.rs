//! Which form each value is made in, and what halo and place its consumers want it to have.
use super::int8::int_conv_input;
use super::{Emit, Form, Home, Loc, Stop, no_kernel};
use crate::aligned::AlignedF32;
use crate::asm::Isa;
use crate::choices::Lanes;
use crate::choices::problem::{Chooser, Decided};
use crate::kernels::conv_transpose::ConvTranspose;
use crate::kernels::copy::{Copy, CopyDim, CopyPart};
use crate::kernels::elem::Elem;
use crate::kernels::layout::BlockedLayout;
use crate::kernels::narrow::NarrowConv;
use crate::kernels::zero::ZeroHalo;
use crate::plan::info::Work;
use crate::plan::ir::{ConvNode, Kind, Node, Program, Vx};
use fcc_ir::Tensor;
use std::collections::HashMap;

type Halo = [(usize, usize); 3];

/// Decisions about values, made before any step is.
pub(super) struct Forms {
    /// Which values are made blocked.
    pub blocked: Vec<bool>,
    /// The halo of a value in a form.
    pub halo: HashMap<(Vx, Form), Halo>,
    /// Values written straight into a concatenation: the whole, and the block it begins at.
    pub inside: HashMap<Vx, (Vx, usize)>,
    /// The results of convolutions of few output channels: whether their lanes are pixels, so that they are row-major,
    /// and why.
    lanes: HashMap<Vx, Decided<Lanes>>,
    pub cb: usize,
    isa: Isa,
}

/// The plain layout of a value that may be an activation: f32, int32 or bytes, of rank 3 to 5.
pub(super) fn activation(program: &Program, v: Vx) -> Option<BlockedLayout> {
    let (elem, shape) = (program.val(v).elem()?, program.shape(v));
    let (&[n, c], spatial) = shape.split_first_chunk::<2>()?;
    let at = 3usize.checked_sub(spatial.len())?;
    if spatial.is_empty() {
        return None;
    }
    let mut s = [1; 3];
    s[at..].copy_from_slice(spatial);
    Some(BlockedLayout { elem, ..BlockedLayout::plain(n, c, s) })
}

/// The convolution with lanes of pixels, if it has so few output channels that this is possible; x and y without halo.
fn narrow(program: &Program, conv: &ConvNode, node: &Node, isa: Isa) -> Option<NarrowConv> {
    let layout = |v: Option<Vx>| v.and_then(|v| activation(program, v));
    let (x, y) = (layout(node.input(0))?, layout(node.out())?);
    let ([depth, ..], [out_depth, h, w], [kernel_depth, ..]) = (x.spatial, y.spatial, conv.kernel);
    let flat = (depth, out_depth, kernel_depth) == (1, 1, 1);
    let possible = conv.group == 1 && !conv.transposed && flat && NarrowConv::possible(isa, x.c, y.c, [h, w]);
    possible.then(|| narrow_conv(conv, x, y))
}

/// A convolution with lanes of pixels from and to these layouts.
pub(super) fn narrow_conv(conv: &ConvNode, x: BlockedLayout, y: BlockedLayout) -> NarrowConv {
    let two = |v: [usize; 3]| [v[1], v[2]];
    NarrowConv {
        x,
        y,
        kernel: two(conv.kernel),
        strides: two(conv.strides),
        dilations: two(conv.dilations),
        pads_begin: two(conv.pads_begin),
        bias: conv.bias,
        residual: conv.residual,
        activation: conv.activation,
    }
}

/// Whether a transposed convolution only spreads each pixel over its own window, and to so few channels that all of a
/// window's results fit in one vector: it is a 1x1 convolution then, and its result row-major.
pub(super) fn spreads(program: &Program, conv: &ConvNode, node: &Node, isa: Isa) -> bool {
    let layout = |v: Option<Vx>| v.and_then(|v| activation(program, v));
    let (Some(x), Some(y)) = (layout(node.input(0)), layout(node.out())) else { return false };
    let window: usize = conv.kernel.iter().product();
    conv.transposed
        && conv.group == 1
        && !conv.residual
        && conv.kernel == conv.strides
        && conv.pads_begin == [0; 3]
        && (0..3).all(|d| conv.kernel[d] == 1 || conv.dilations[d] == 1)
        && (0..3).all(|d| y.spatial[d] == x.spatial[d] * conv.strides[d])
        && y.c * window <= isa.lanes()
}

/// For each channel of the result the channel of the input, of a selection of whole channels of an f32 activation.
pub(super) fn channels(program: &Program, node: &Node) -> Option<Vec<usize>> {
    let (x, y) = (node.input(0)?, node.out()?);
    let (from, to) = (activation(program, x)?, activation(program, y)?);
    if from.elem != Elem::F32 || (from.n, from.spatial) != (to.n, to.spatial) {
        return None;
    }
    match &node.kind {
        Kind::Part { axis: 1, start } => Some((*start..start + to.c).collect()),
        Kind::Select { sources, .. } => {
            let same = |list: &Vec<Option<usize>>| list.iter().enumerate().all(|(i, s)| *s == Some(i));
            let others = sources.iter().enumerate().filter(|(axis, _)| *axis != 1);
            others.map(|(_, list)| list).all(same).then(|| sources.get(1)?.iter().copied().collect())?
        }
        _ => None,
    }
}

/// The form in which a convolution reads x.
pub(super) fn conv_input(program: &Program, conv: &ConvNode, node: &Node, forms: &Forms) -> Form {
    let x = node.input(0);
    let c = x.and_then(|x| program.shape(x).get(1).copied()).unwrap_or(0);
    let x_blocked = x.is_some_and(|x| forms.blocked[x.at()]);
    let first = conv.group == 1 && !conv.transposed && !x_blocked && c < forms.isa.lanes();
    if first || forms.lanes_are_pixels(node) { Form::Haloed } else { Form::Blocked }
}

impl Forms {
    pub fn choose(program: &Program, chooser: &mut Chooser) -> Forms {
        let isa = chooser.setting.isa;
        let cb = isa.lanes();
        let mut f = Forms {
            blocked: vec![false; program.vals.len()],
            halo: HashMap::new(),
            inside: HashMap::new(),
            lanes: HashMap::new(),
            cb,
            isa,
        };
        for node in &program.nodes {
            if let (Kind::Conv(conv), Some(out)) = (&node.kind, node.out())
                && let Some(narrow) = narrow(program, conv, node, isa)
            {
                f.lanes.insert(out, chooser.lanes(narrow));
            }
        }
        for node in &program.nodes {
            let Some(out) = node.out() else { continue };
            f.blocked[out.at()] = f.makes_blocked(program, node);
        }
        for node in &program.nodes {
            f.want_halos(program, node);
        }
        f.place_concats(program);
        f
    }

    /// Whether the lanes of a convolution are pixels; its result is row-major then.
    pub fn lanes_are_pixels(&self, node: &Node) -> bool {
        self.lanes(node).is_some_and(|d| d.way == Lanes::Pixels)
    }
    /// What is in the lanes of a convolution where there was a choice, and why.
    pub fn lanes(&self, node: &Node) -> Option<&Decided<Lanes>> {
        node.out().and_then(|out| self.lanes.get(&out))
    }

    fn makes_blocked(&self, program: &Program, node: &Node) -> bool {
        let Some(out) = node.out() else { return false };
        if activation(program, out).is_none() {
            return false;
        }
        let blocked = |v: &Vx| self.blocked[v.at()];
        let shape = program.shape(out);
        match &node.kind {
            Kind::Conv(conv) => !self.lanes_are_pixels(node) && !spreads(program, conv, node, self.isa),
            Kind::IntConv(..) | Kind::Pool(_) | Kind::Resize { .. } => true,
            // a part of whole blocks is a view, if x is blocked
            Kind::Part { axis: 1, start } if start.is_multiple_of(self.cb) => {
                node.input(0).is_some_and(|x| blocked(&x))
            }
            Kind::Part { .. } | Kind::Select { .. } => {
                node.input(0).is_some_and(|x| blocked(&x)) && channels(program, node).is_some()
            }
            Kind::Ew(_) => node.inputs.iter().flatten().any(|v| blocked(v) && program.shape(*v) == shape),
            Kind::Concat { axis } => *axis == 1 && node.inputs.iter().flatten().all(blocked),
            _ => false,
        }
    }

    fn want(&mut self, v: Vx, form: Form, halo: Halo) {
        let entry = self.halo.entry((v, form)).or_default();
        for (have, want) in entry.iter_mut().zip(halo) {
            *have = (have.0.max(want.0), have.1.max(want.1));
        }
    }

    fn want_halos(&mut self, program: &Program, node: &Node) {
        if let (Kind::IntConv(conv, _), Some(x)) = (&node.kind, node.input(0))
            && let (Some(l), Some(y)) =
                (activation(program, x), node.out().and_then(|y| activation(program, y)))
        {
            let form = int_conv_input(program, conv, x, self.blocked[x.at()]);
            let around = crate::kernels::int8::conv::halo;
            let c = conv;
            let halo = around(l.spatial, y.spatial, c.kernel, c.strides, c.dilations, c.pads_begin);
            return self.want(x, form, halo);
        }
        let (Kind::Conv(conv), Some(x)) = (&node.kind, node.input(0)) else { return };
        let form = conv_input(program, conv, node, self);
        let (Some(l), Some(y)) = (activation(program, x), node.out().and_then(|y| activation(program, y)))
        else {
            return;
        };
        if spreads(program, conv, node, self.isa) {
            return;
        }
        if conv.transposed {
            let kernel = ConvTranspose {
                x: BlockedLayout { cb: self.cb, ..l },
                y: BlockedLayout { cb: self.cb, ..y },
                kernel: conv.kernel,
                strides: conv.strides,
                dilations: conv.dilations,
                pads_begin: conv.pads_begin,
                group: conv.group,
                bias: false,
                activation: None,
            };
            return self.want(x, Form::Blocked, kernel.halo());
        }
        if !dense(conv.group, l.c, y.c, self.cb) {
            // these kernels clip their windows
            return;
        }
        let mut halo = Halo::default();
        for (d, halo) in halo.iter_mut().enumerate() {
            // what the last window reaches, which may be less than the padding
            let reach =
                (y.spatial[d].max(1) - 1) * conv.strides[d] + (conv.kernel[d] - 1) * conv.dilations[d] + 1;
            *halo = (conv.pads_begin[d], reach.saturating_sub(conv.pads_begin[d] + l.spatial[d]));
        }
        self.want(x, form, halo);
    }

    /// Inputs of a concatenation that are made blocked are written into it, where nothing else claims them.
    fn place_concats(&mut self, program: &Program) {
        let makers = program.makers();
        for node in &program.nodes {
            if let (Kind::Part { start, .. }, Some(x), Some(y)) = (&node.kind, node.input(0), node.out())
                && self.blocked[y.at()]
                && start.is_multiple_of(self.cb)
            {
                self.inside.insert(y, (x, start / self.cb));
            }
        }
        for node in &program.nodes {
            let (Kind::Concat { axis: 1 }, Some(out)) = (&node.kind, node.out()) else { continue };
            if !self.blocked[out.at()] {
                continue;
            }
            let inputs: Vec<Vx> = node.inputs.iter().flatten().copied().collect();
            let mut channel = 0;
            for (i, v) in inputs.iter().copied().enumerate() {
                let whole = self.whole_of_parts(program, &makers, &inputs[i..]).unwrap_or(v);
                let made = makers[whole.at()].is_some_and(|m| {
                    matches!(
                        program.nodes[m].kind,
                        Kind::Conv(_)
                            | Kind::IntConv(..)
                            | Kind::Pool(_)
                            | Kind::Ew(_)
                            | Kind::Concat { .. }
                            | Kind::Resize { .. }
                            | Kind::Select { .. }
                    )
                });
                let free = !self.inside.contains_key(&whole) && self.root(out).0 != whole;
                if made && free && channel % self.cb == 0 {
                    self.inside.insert(whole, (out, channel / self.cb));
                }
                channel += program.shape(v)[1];
            }
        }
        // one halo for all that share a buffer
        let roots: Vec<(Vx, Vx)> = self.inside.keys().map(|v| (*v, self.root(*v).0)).collect();
        for (v, root) in &roots {
            let halo = self.halo.get(&(*v, Form::Blocked)).copied().unwrap_or_default();
            self.want(*root, Form::Blocked, halo);
        }
    }
    /// The value whose parts the next inputs of a concatenation are, all of them and in order.
    fn whole_of_parts(&self, program: &Program, makers: &[Option<usize>], inputs: &[Vx]) -> Option<Vx> {
        let (whole, 0) = self.inside.get(inputs.first()?)? else { return None };
        let mut channels = 0;
        for v in inputs {
            let Kind::Part { start, .. } = &program.nodes[makers[v.at()]?].kind else { return None };
            if self.inside.get(v)?.0 != *whole || *start != channels {
                return None;
            }
            channels += program.shape(*v)[1];
            if channels == program.shape(*whole)[1] {
                return Some(*whole);
            }
        }
        None
    }
    /// The buffer that a value lies in and the block it begins at.
    pub fn root(&self, v: Vx) -> (Vx, usize) {
        let (mut v, mut block) = (v, 0);
        while let Some((whole, at)) = self.inside.get(&v) {
            v = *whole;
            block += at;
        }
        (v, block)
    }
}

/// Whether the dense kernel does these groups.
pub(super) fn dense(group: usize, c: usize, m: usize, cb: usize) -> bool {
    crate::kernels::conv::dense_groups(group, c / group, m / group, cb)
}

impl Emit<'_> {
    /// The layout that a value has in a form.
    pub(super) fn layout(&self, v: Vx, form: Form) -> Result<BlockedLayout, Stop> {
        let plain =
            activation(self.program, v).ok_or_else(|| no_kernel("an activation of another rank or type"))?;
        let halo = |v: Vx| self.forms.halo.get(&(v, form)).copied().unwrap_or_default();
        Ok(match form {
            Form::Plain => plain,
            Form::Haloed => plain.with_halo(halo(v)),
            Form::Quad => BlockedLayout { cb: 4, ..plain }.with_halo(halo(v)),
            Form::Blocked => {
                let (root, _) = self.forms.root(v);
                let blocked = BlockedLayout { cb: self.forms.cb, ..plain }.with_halo(halo(root));
                if root == v {
                    blocked
                } else {
                    let whole = activation(self.program, root).map_or(0, |l| l.c.div_ceil(self.forms.cb));
                    BlockedLayout { parent_blocks: Some(whole), ..blocked }
                }
            }
        })
    }

    /// A place for a value that a step is about to make.
    pub(super) fn make(&mut self, v: Vx) -> Result<Loc, Stop> {
        let form = if self.forms.blocked[v.at()] { Form::Blocked } else { Form::Plain };
        self.make_in(v, form)
    }
    pub(super) fn make_in(&mut self, v: Vx, form: Form) -> Result<Loc, Stop> {
        if let Some(loc) = self.locs.get(&(v, form)) {
            return Ok(*loc);
        }
        let loc = match form {
            Form::Plain => {
                let bytes = self.bytes_of(v)?;
                let layout = activation(self.program, v);
                Loc { home: Home::Buffer(self.buffer(bytes)), offset: 0, layout }
            }
            Form::Haloed | Form::Quad => {
                let layout = self.layout(v, form)?;
                Loc { home: Home::Buffer(self.buffer(layout.bytes())), offset: 0, layout: Some(layout) }
            }
            Form::Blocked => {
                let layout = self.layout(v, form)?;
                let (root, block) = self.forms.root(v);
                let home = match root == v {
                    true => Home::Buffer(self.buffer(layout.bytes())),
                    false => self.make_in(root, Form::Blocked)?.home,
                };
                Loc { home, offset: block * layout.block_bytes(), layout: Some(layout) }
            }
        };
        self.locs.insert((v, form), loc);
        Ok(loc)
    }

    /// The form a value was made in, with its place.
    pub(super) fn made(&self, v: Vx) -> Option<(Form, Loc)> {
        [Form::Blocked, Form::Plain].into_iter().find_map(|f| Some((f, *self.locs.get(&(v, f))?)))
    }

    /// The value in the form that a step wants, copied there if it is not.
    pub(super) fn need(&mut self, v: Vx, form: Form, place: &str) -> Result<Loc, Stop> {
        if let Some(loc) = self.locs.get(&(v, form)) {
            return Ok(*loc);
        }
        if self.program.constant_of(v).is_some() {
            return self.need_constant(v, form);
        }
        let (from, loc) = self.made(v).ok_or_else(|| {
            fcc_ir::Error::invalid(format!("value `{}` is read before it is made", self.program.val(v).name))
        })?;
        let want = if form == Form::Plain && activation(self.program, v).is_none() {
            return Err(no_kernel("a form of a value that is no activation"));
        } else {
            self.layout(v, form)?
        };
        let have = match loc.layout {
            Some(l) => l,
            None => return Err(no_kernel("a form of a value that is no activation")),
        };
        if same_bytes(&have, &want) {
            let loc = Loc { layout: Some(want), ..loc };
            self.locs.insert((v, form), loc);
            return Ok(loc);
        }
        let to = self.make_in(v, form)?;
        let layout = to.layout.unwrap_or(want);
        let kernel = self.kernel(&relayout(&have, &layout), Copy::build)?;
        self.zero_halo(&to, place)?;
        let val = self.program.val(v);
        let work =
            Work::Reorder { value: val.name.clone(), from: words(from, &have), to: words(form, &layout) };
        self.aside(work, val.ty.to_string(), |e| e.run(place, kernel, vec![loc, to]))?;
        Ok(to)
    }

    fn need_constant(&mut self, v: Vx, form: Form) -> Result<Loc, Stop> {
        let loc = if form == Form::Plain {
            let at = self.const_tensor(v).ok_or_else(|| no_kernel("a constant"))?;
            Loc { home: Home::Const(at), offset: 0, layout: activation(self.program, v) }
        } else {
            let layout = self.layout(v, form)?;
            let plain = self.layout(v, Form::Plain)?;
            let tensor = self.program.constant_of(v).ok_or_else(|| no_kernel("a constant"))?;
            if tensor.dtype() != fcc_ir::DType::F32 {
                return Err(no_kernel("a constant activation that is not f32"));
            }
            let data = host_relayout(tensor, &plain, &layout)?;
            let mut loc = self.packed(data);
            loc.layout = Some(layout);
            loc
        };
        self.locs.insert((v, form), loc);
        Ok(loc)
    }

    /// Zeroes the halo of what the next step writes without its halo.
    pub(super) fn zero_halo(&mut self, to: &Loc, place: &str) -> Result<(), Stop> {
        // that of bytes is filled by who reads it
        let Some(layout) = to.layout.filter(|l| !l.is_tight() && l.elem.bytes() == 4) else { return Ok(()) };
        let kernel = self.kernel(&ZeroHalo { layout }, ZeroHalo::build)?;
        let value = format!("{} images of {}x{:?}", layout.n, layout.c, layout.spatial);
        self.aside(Work::Border, value, |e| e.run(place, kernel, vec![*to]))
    }
}

/// A form as explanations call it.
fn words(form: Form, layout: &BlockedLayout) -> String {
    let border = if layout.is_tight() { "" } else { " with a border" };
    match form {
        Form::Plain => "row-major".into(),
        Form::Haloed => format!("row-major{border}"),
        Form::Blocked | Form::Quad => format!("channels in blocks of {}{border}", layout.cb),
    }
}

/// Whether two layouts of one value put every element at the same byte.
fn same_bytes(a: &BlockedLayout, b: &BlockedLayout) -> bool {
    if a == b {
        return true;
    }
    // channels of single pixels lie one after another, whatever the block, where blocks are whole or images single
    let flat = |l: &BlockedLayout| {
        l.is_tight()
            && l.spatial == [1; 3]
            && l.parent_blocks.is_none()
            && (l.c.is_multiple_of(l.cb) || l.n == 1)
    };
    // reading whole blocks of what is stored without padding would pass its end
    flat(a) && flat(b) && b.bytes() <= a.bytes()
}

/// The copy from one layout of a value to another; the halo is left as it is.
fn relayout(from: &BlockedLayout, to: &BlockedLayout) -> Copy {
    let cb = from.cb.max(to.cb);
    let part = |first: usize, channels: usize, blocks: usize, lanes: usize| {
        let block_step = |l: &BlockedLayout| if l.cb == 1 { cb * l.block_bytes() } else { l.block_bytes() };
        let lane_step = |l: &BlockedLayout| if l.cb == 1 { l.block_bytes() } else { l.elem.bytes() };
        let start = |l: &BlockedLayout| {
            l.origin_bytes()
                + if l.cb == 1 { first * l.block_bytes() } else { first / l.cb * l.block_bytes() }
        };
        let _ = channels;
        let dim = |count: usize, f: &dyn Fn(&BlockedLayout) -> usize| CopyDim {
            count,
            src: f(from) as i64,
            dst: f(to) as i64,
        };
        let [d, h, w] = from.spatial;
        let dims = vec![
            dim(from.n, &|l| l.batch_bytes()),
            dim(blocks, &block_step),
            dim(d, &|l| l.plane_bytes()),
            dim(h, &|l| l.row_bytes()),
            dim(w, &|l| l.pixel_bytes()),
            dim(lanes, &lane_step),
        ];
        CopyPart { source: 0, src: start(from), dst: start(to), dims }
    };
    let (whole, rest) = (from.c / cb, from.c % cb);
    let mut parts = vec![];
    if whole > 0 {
        parts.push(part(0, whole * cb, whole, cb));
    }
    if rest > 0 {
        parts.push(part(whole * cb, rest, 1, rest));
    }
    Copy { width: from.elem.bytes(), parts, src_bytes: vec![from.bytes()], dst_bytes: to.bytes() }
}

/// A constant in another layout, zero where the layout has more than the value.
fn host_relayout(tensor: &Tensor, from: &BlockedLayout, to: &BlockedLayout) -> Result<AlignedF32, Stop> {
    let x = tensor.as_slice::<f32>().map_err(Stop::Error)?;
    let mut y = AlignedF32::zeros(to.bytes() / 4);
    let [d, h, w] = from.spatial;
    let base = to.origin_bytes() / 4;
    let mut i = 0;
    for n in 0..from.n {
        for c in 0..from.c {
            let at = base + (n * to.batch_bytes() + c / to.cb * to.block_bytes()) / 4 + c % to.cb;
            for p in 0..d * h {
                let row = at + (p / h * to.plane_bytes() + p % h * to.row_bytes()) / 4;
                for q in 0..w {
                    y[row + q * to.cb] = x[i];
                    i += 1;
                }
            }
        }
    }
    Ok(y)
}
