package bench

import (
	"bytes"
	"fmt"
	"image/color"

	"codeberg.org/go-fonts/liberation/liberationsansbold"
	"codeberg.org/go-fonts/liberation/liberationsansregular"
	xfont "golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// picture is one of the document's pictures.
type picture struct {
	name   string // of its files, without the ending
	alt    string // in words, for those who do not see it
	height float64
	draw   func(*sheet)
}

// sheetWidth is that of every picture, as GitHub shows it at most.
const sheetWidth = 800

// sheet is drawn on in pixels of the final size, from the upper left corner. Only
// the drawing layer of gonum's plot is used, not its Plot: that parses all fonts when
// a process starts, and this package is part of a daemon.
type sheet struct {
	canvas draw.Canvas
	fonts  text.Handler
	height float64
}

var (
	inkText = rgb(0x1a1a1a)
	inkSoft = rgb(0x5c5c5c)
	inkGrid = rgb(0xdddddd)
	inkAxis = rgb(0x808080)
)

// The sizes of text.
const (
	sizeTitle = 16
	sizeHead  = 13
	sizeBody  = 12
)

type align = text.XAlignment

const (
	toLeft   = text.XLeft
	toCenter = text.XCenter
	toRight  = text.XRight
)

// px is a length on the sheet; CSS has 96 pixels to an inch, vg 72 points.
func px(v float64) vg.Length { return vg.Length(v) * 72 / 96 }

// svg and png are the files of a picture.
func (p picture) svg() ([]byte, error) {
	c := vgsvg.New(px(sheetWidth), px(p.height))
	data, err := p.file(c)
	// Where there is no Liberation Sans, Arial has the same widths.
	return bytes.ReplaceAll(data, []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), err
}

func (p picture) png() ([]byte, error) {
	// Twice the size, for screens with as many pixels.
	return p.file(vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(px(sheetWidth), px(p.height)), vgimg.UseDPI(2*96))})
}

// file draws a picture on a canvas, and returns that as a file.
func (p picture) file(c vg.CanvasWriterTo) ([]byte, error) {
	fonts, err := sans()
	if err != nil {
		return nil, fmt.Errorf("drawing %s: %w", p.name, err)
	}
	s := &sheet{draw.New(c), text.Plain{Fonts: fonts}, p.height}
	s.rect(0, 0, sheetWidth, p.height, color.White)
	p.draw(s)
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("drawing %s: %w", p.name, err)
	}
	return b.Bytes(), nil
}

// sans are the two fonts that are used. gonum's own collection would add ten more to
// the program, which are 3.6 MB.
func sans() (*font.Cache, error) {
	var c font.Collection
	for _, f := range []struct {
		weight xfont.Weight
		data   []byte
	}{{xfont.WeightNormal, liberationsansregular.TTF}, {xfont.WeightBold, liberationsansbold.TTF}} {
		face, err := opentype.Parse(f.data)
		if err != nil {
			return nil, fmt.Errorf("reading a font: %w", err)
		}
		c = append(c, font.Face{Font: font.Font{Typeface: "Liberation", Variant: "Sans", Weight: f.weight}, Face: face})
	}
	return font.NewCache(c), nil
}

func (s *sheet) at(x, y float64) vg.Point { return vg.Point{X: px(x), Y: px(s.height - y)} }

func (s *sheet) style(size float64, bold bool) draw.TextStyle {
	f := font.Font{Typeface: "Liberation", Variant: "Sans"}
	if bold {
		f.Weight = xfont.WeightBold
	}
	return draw.TextStyle{Font: font.From(f, px(size)), Handler: s.fonts, YAlign: text.YCenter}
}

// text writes a line, with its middle at y.
func (s *sheet) text(x, y, size float64, ink color.Color, a align, words string) {
	// The middle of all that a font may draw is below that of its letters.
	s.write(x, y-size/12, s.style(size, false), ink, a, words)
}

func (s *sheet) bold(x, y, size float64, a align, words string) {
	s.write(x, y-size/12, s.style(size, true), inkText, a, words)
}

func (s *sheet) write(x, y float64, st draw.TextStyle, ink color.Color, a align, words string) {
	st.Color, st.XAlign = ink, a
	s.canvas.FillText(st, s.at(x, y), words)
}

// width is that of a line of text.
func (s *sheet) width(size float64, words string) float64 {
	st := s.style(size, false)
	return float64(st.Width(words)) * 96 / 72
}

func (s *sheet) rect(x, y, w, h float64, ink color.Color) {
	s.canvas.FillPolygon(ink, []vg.Point{s.at(x, y), s.at(x+w, y), s.at(x+w, y+h), s.at(x, y+h)})
}

func (s *sheet) line(x0, y0, x1, y1, width float64, ink color.Color) {
	s.path([][2]float64{{x0, y0}, {x1, y1}}, width, ink, false)
}

func (s *sheet) path(points [][2]float64, width float64, ink color.Color, dashed bool) {
	style := draw.LineStyle{Color: ink, Width: px(width)}
	if dashed {
		style.Dashes = []vg.Length{px(5), px(3)}
	}
	line := make([]vg.Point, len(points))
	for i, p := range points {
		line[i] = s.at(p[0], p[1])
	}
	s.canvas.StrokeLines(style, line)
}

// dot marks a point of a curve: a circle, and for dashed curves a triangle.
func (s *sheet) dot(x, y float64, ink color.Color, dashed bool) {
	var shape draw.GlyphDrawer = draw.CircleGlyph{}
	if dashed {
		shape = draw.PyramidGlyph{}
	}
	s.canvas.DrawGlyphNoClip(draw.GlyphStyle{Color: ink, Radius: px(3), Shape: shape}, s.at(x, y))
}

// legend writes the names of ways with their lines from (x, y) on, and wraps before
// right. It returns where the next line would be.
func (s *sheet) legend(x, y, right float64, ways []string) float64 {
	left := x
	for _, way := range ways {
		p := portraitOf(way)
		w := 34 + s.width(sizeBody, way) + 18
		if x > left && x+w > right {
			x, y = left, y+20
		}
		s.path([][2]float64{{x, y}, {x + 28, y}}, p.width(), p.color, p.dashed)
		s.dot(x+14, y, p.color, p.dashed)
		s.text(x+34, y, sizeBody, inkText, toLeft, way)
		x += w
	}
	return y + 20
}
