// PitomeMerge and SsmMerge: reads a call, launches the kernels of ../local_merge.
#pragma once

#include "merges.h"
#include "pitome.h"
#include "ssm.h"

namespace tsmerge
{

class PitomeMerge
{
public:
    static constexpr bool kTakesShare = true;

    explicit PitomeMerge(OrtKernelInfo const* raw)
        : mSettings(readAmounts(Ort::ConstKernelInfo{raw}))
    {
        Ort::ConstKernelInfo const info{raw};
        mEnergy.margin = real(info, "margin", -1, 1);
        mEnergy.alpha = real(info, "alpha", 0, 1000000);
        mEnergy.gaussian = integer(info, "energy", 0, 1) != 0;
    }

    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const x = context.GetInput(0);
        Problem problem = problemOf(x, context.GetInput(1), context.GetInput(2));
        Settings const settings = settingsOf(mSettings, context);
        makeOutputs(context, problem, problem.tokens - removedTokens(settings, problem.tokens));
        Scratch const scratch(context, x, pitomeWorkspaceBytes(settings, problem.batch, problem.tokens));
        check(launchPitome(settings, mEnergy, problem, scratch.get(), streamOf(context)), "PitomeMerge");
    }

private:
    Settings mSettings;
    Energy mEnergy;
};

class SsmMerge
{
public:
    static constexpr bool kTakesShare = true;

    explicit SsmMerge(OrtKernelInfo const* raw)
        : mSettings(readAmounts(Ort::ConstKernelInfo{raw}))
    {
        Ort::ConstKernelInfo const info{raw};
        mPruning.pruned.num = integer(info, "prune_num", 0, kRatioMost);
        mPruning.pruned.den = integer(info, "prune_den", 1, kRatioMost);
        mPruning.residual.num = integer(info, "residual_num", 0, kRatioMost, true);
        mPruning.residual.den = integer(info, "residual_den", 0, kRatioMost, true);
        if (mPruning.pruned.num > mPruning.pruned.den || mPruning.residual.num > mPruning.residual.den)
        {
            refuse("a share to prune must be at most 1");
        }
    }

    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const x = context.GetInput(0);
        Problem problem = problemOf(x, context.GetInput(1), context.GetInput(2));
        if (mPruning.residual.den != 0 && problem.features != problem.metricFeatures)
        {
            refuse("residual_den needs a metric of the width of x");
        }
        Settings const settings = settingsOf(mSettings, context);
        makeOutputs(context, problem, problem.tokens - removedTokens(settings, problem.tokens));
        Scratch const scratch(context, x, ssmWorkspaceBytes(settings, problem.batch, problem.tokens));
        check(launchSsm(settings, mPruning, problem, scratch.get(), streamOf(context)), "SsmMerge");
    }

private:
    Settings mSettings;
    Pruning mPruning;
};

}  // namespace tsmerge
