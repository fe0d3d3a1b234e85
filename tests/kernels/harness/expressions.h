// Dimension expressions: numbers that know whether they are constants.
#pragma once

#include <NvInferRuntime.h>

#include <deque>

class Expression final : public nvinfer1::IDimensionExpr {
public:
    Expression(int64_t value, bool constant) : inner_(value, constant) { mImpl = &inner_; }
    ~Expression() noexcept override = default;

    static int64_t value_of(nvinfer1::IDimensionExpr const* one) {
        return static_cast<Expression const*>(one)->inner_.value;
    }

private:
    struct Inner final : nvinfer1::apiv::VDimensionExpr {
        Inner(int64_t value_, bool constant_) : value(value_), constant(constant_) {}
        bool isConstant() const override { return constant; }
        int64_t getConstantValue() const override { return constant ? value : INT64_MIN; }
        bool isSizeTensor() const override { return false; }
        int64_t value;
        bool constant;
    };
    Inner inner_;
};

class ExpressionBuilder final : public nvinfer1::IExprBuilder {
public:
    ExpressionBuilder() { mImpl = &inner_; }
    ~ExpressionBuilder() noexcept override = default;

    nvinfer1::IDimensionExpr const* variable(int64_t value) { return &inner_.made.emplace_back(value, false); }

private:
    struct Inner final : nvinfer1::apiv::VExprBuilder {
        nvinfer1::IDimensionExpr const* constant(int64_t value) override { return &made.emplace_back(value, true); }
        nvinfer1::IDimensionExpr const* operation(nvinfer1::DimensionOperation, nvinfer1::IDimensionExpr const&,
                                                  nvinfer1::IDimensionExpr const&) override {
            return nullptr;  // no output of this plugin needs one
        }
        nvinfer1::IDimensionExpr const* declareSizeTensor(int32_t, nvinfer1::IDimensionExpr const&,
                                                          nvinfer1::IDimensionExpr const&) override {
            return nullptr;
        }
        std::deque<Expression> made;
    };
    Inner inner_;
};
