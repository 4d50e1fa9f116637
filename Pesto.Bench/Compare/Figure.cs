using System.Globalization;

namespace Pesto.Bench.Compare;

/// <summary>Numbers as a reader wants them: three or four digits that count.</summary>
static class Figure
{
    public static string Text(double? value) => value is not { } number || double.IsNaN(number) ? "-" : number.ToString(Format(number), CultureInfo.InvariantCulture);

    static string Format(double number) => Math.Abs(number) switch
    {
        0 => "0",
        < 0.1 => "0.0000",
        < 1 => "0.000",
        < 10 => "0.00",
        < 100 => "0.0",
        _ => "#,##0",
    };
}
